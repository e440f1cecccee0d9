-- Groups, members and requests to join.

-- One counter for the epochs of all groups: a group made anew starts above all that its name ever had.
CREATE TABLE epoch (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    value INTEGER NOT NULL
) STRICT;
INSERT INTO epoch VALUES (1, 0);

CREATE TABLE groups (
    -- Never used again, so that a proof of standing does not outlive its group.
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    -- NFKC with case folded: no two groups look alike.
    folded     TEXT    NOT NULL UNIQUE,
    owner      INTEGER NOT NULL REFERENCES accounts,
    epoch      INTEGER NOT NULL,
    -- Counts of members and files: kept by triggers.
    members    INTEGER NOT NULL DEFAULT 0 CHECK (members >= 0),
    files      INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0),
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX groups_of_owner ON groups (owner);

CREATE TABLE members (
    -- Grows: the order of coming in.
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id   INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    account    INTEGER NOT NULL REFERENCES accounts,
    since      INTEGER NOT NULL,
    UNIQUE (group_id, account)
) STRICT;
CREATE INDEX members_in_order ON members (group_id, id);
CREATE INDEX members_of_account ON members (account);

CREATE TRIGGER member_in AFTER INSERT ON members BEGIN
    UPDATE groups SET members = members + 1 WHERE id = NEW.group_id;
END;
CREATE TRIGGER member_out AFTER DELETE ON members BEGIN
    UPDATE groups SET members = members - 1 WHERE id = OLD.group_id;
END;

CREATE TABLE requests (
    -- Grows: the order of asking.
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id   INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    account    INTEGER NOT NULL REFERENCES accounts,
    since      INTEGER NOT NULL,
    UNIQUE (group_id, account)
) STRICT;
CREATE INDEX requests_in_order ON requests (group_id, id);
CREATE INDEX requests_of_account ON requests (account);
