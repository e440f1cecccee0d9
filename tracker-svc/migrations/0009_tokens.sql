-- Tokens for machines.

CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    account    INTEGER NOT NULL REFERENCES accounts ON DELETE CASCADE,
    name       TEXT    NOT NULL,
    -- SHA-256 of the token; the token itself is nowhere.
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
    allow      TEXT    NOT NULL CHECK (allow IN ('read', 'share', 'manage')),
    -- The groups that it is for, with a slash between them, which no name has. NULL: all groups of the account.
    in_groups  TEXT,
    created_at INTEGER NOT NULL,
    used_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    UNIQUE (account, name)
) STRICT;
CREATE INDEX tokens_by_end ON tokens (expires_at);

-- The token that a peer was certified for. It goes with its token.
ALTER TABLE peers ADD COLUMN token INTEGER REFERENCES tokens ON DELETE CASCADE;
CREATE INDEX peers_of_token ON peers (token);
