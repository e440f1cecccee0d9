-- Files and the hashes of their pieces.

CREATE TABLE manifests (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- Who published it, whose quota it counts on.
    account   INTEGER NOT NULL REFERENCES accounts,
    bytes     INTEGER NOT NULL CHECK (bytes >= 0),
    -- 0 staged, 1 bound to a file, 2 to be swept away.
    state     INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    staged_at INTEGER NOT NULL
) STRICT;
CREATE INDEX manifests_not_bound ON manifests (state) WHERE state <> 1;

CREATE TRIGGER manifest_staged AFTER INSERT ON manifests BEGIN
    UPDATE accounts SET manifest_bytes = manifest_bytes + NEW.bytes WHERE id = NEW.account;
END;
CREATE TRIGGER manifest_dropped AFTER UPDATE OF state ON manifests WHEN OLD.state <> 2 AND NEW.state = 2 BEGIN
    UPDATE accounts SET manifest_bytes = manifest_bytes - NEW.bytes WHERE id = NEW.account;
END;

-- Up to 4,096 pieces a row.
CREATE TABLE runs (
    id       INTEGER PRIMARY KEY,
    manifest INTEGER NOT NULL REFERENCES manifests,
    first    INTEGER NOT NULL,
    sha1     BLOB    NOT NULL,
    blake3   BLOB    NOT NULL,
    UNIQUE (manifest, first)
) STRICT;

CREATE TABLE files (
    -- 16 random bytes.
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    group_id     INTEGER NOT NULL REFERENCES groups ON DELETE CASCADE,
    name         TEXT    NOT NULL,
    -- NFKC with case folded.
    folded       TEXT    NOT NULL,
    length       INTEGER NOT NULL,
    sha1         BLOB    NOT NULL CHECK (length(sha1) = 20),
    blake3       BLOB    NOT NULL CHECK (length(blake3) = 32),
    -- BLAKE3 over all piece hashes as they came.
    hashes       BLOB    NOT NULL CHECK (length(hashes) = 32),
    manifest     INTEGER NOT NULL UNIQUE REFERENCES manifests,
    publisher    INTEGER NOT NULL REFERENCES accounts,
    published_at INTEGER NOT NULL,
    UNIQUE (group_id, folded)
) STRICT;
CREATE INDEX files_by_name ON files (group_id, name);

CREATE TRIGGER file_in AFTER INSERT ON files BEGIN
    UPDATE groups SET files = files + 1 WHERE id = NEW.group_id;
END;
CREATE TRIGGER file_out AFTER DELETE ON files BEGIN
    UPDATE groups SET files = files - 1 WHERE id = OLD.group_id;
    UPDATE manifests SET state = 2 WHERE id = OLD.manifest;
END;
