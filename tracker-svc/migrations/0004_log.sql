-- The audit log, and the changes that running streams must hear of.

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT,
    ip      TEXT,
    action  TEXT    NOT NULL,
    object  TEXT    NOT NULL,
    request TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_time ON audit (at);
-- Rows are added, and dropped when they are old; never changed.
CREATE TRIGGER audit_stands BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TABLE changes (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    group_name TEXT,
    username   TEXT,
    file       BLOB,
    session    BLOB,
    epoch      INTEGER
) STRICT;
CREATE INDEX changes_by_time ON changes (at);
