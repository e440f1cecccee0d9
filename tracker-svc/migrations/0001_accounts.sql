-- Accounts, sessions and peers. Times are milliseconds since 1970-01-01 UTC throughout.

CREATE TABLE accounts (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    username       TEXT    NOT NULL UNIQUE,
    -- PHC string.
    password       TEXT    NOT NULL,
    disabled       INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    -- Bytes of the account's manifests that are staged or bound: kept by triggers.
    manifest_bytes INTEGER NOT NULL DEFAULT 0 CHECK (manifest_bytes >= 0),
    created_at     INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    -- SHA-256 of the token; the token itself is nowhere.
    hash      BLOB    NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    account   INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    opened_at INTEGER NOT NULL,
    used_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_account ON sessions (account, used_at);

CREATE TABLE peers (
    -- SHA-256 of the SubjectPublicKeyInfo.
    peer       BLOB    NOT NULL PRIMARY KEY CHECK (length(peer) = 32),
    account    INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    -- When its last certificate runs out.
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX peers_of_account ON peers (account);
