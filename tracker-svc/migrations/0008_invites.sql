-- Invitations to groups.

CREATE TABLE invites (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id   INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    -- Who made it. While that account is disabled, the invitation is void.
    account    INTEGER NOT NULL REFERENCES accounts,
    -- SHA-256 of the secret; the secret itself is nowhere.
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    -- The file that the link names.
    file       TEXT,
    uses       INTEGER NOT NULL CHECK (uses > 0),
    uses_left  INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX invites_of_group ON invites (group_id, id);
CREATE INDEX invites_by_end ON invites (expires_at);

-- Who has used which: once each, so that a member who was removed does not come back by the same link.
CREATE TABLE invite_uses (
    invite  INTEGER NOT NULL REFERENCES invites ON DELETE CASCADE,
    account INTEGER NOT NULL REFERENCES accounts,
    used_at INTEGER NOT NULL,
    PRIMARY KEY (invite, account)
) STRICT, WITHOUT ROWID;
