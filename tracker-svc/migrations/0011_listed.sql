-- What each group and each user has listed: kept by triggers.

ALTER TABLE groups ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0);
ALTER TABLE accounts ADD COLUMN files INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0);
ALTER TABLE accounts ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0);

UPDATE groups SET bytes = COALESCE((SELECT sum(length) FROM files WHERE group_id = groups.id), 0);
UPDATE accounts SET files = (SELECT count(*) FROM files WHERE publisher = accounts.id),
                    bytes = COALESCE((SELECT sum(length) FROM files WHERE publisher = accounts.id), 0)
 WHERE id IN (SELECT publisher FROM files);

DROP TRIGGER file_in;
DROP TRIGGER file_out;
CREATE TRIGGER file_in AFTER INSERT ON files BEGIN
    UPDATE groups SET files = files + 1, bytes = bytes + NEW.length WHERE id = NEW.group_id;
    UPDATE accounts SET files = files + 1, bytes = bytes + NEW.length WHERE id = NEW.publisher;
END;
CREATE TRIGGER file_out AFTER DELETE ON files BEGIN
    UPDATE groups SET files = files - 1, bytes = bytes - OLD.length WHERE id = OLD.group_id;
    UPDATE accounts SET files = files - 1, bytes = bytes - OLD.length WHERE id = OLD.publisher;
    UPDATE manifests SET state = 2 WHERE id = OLD.manifest;
END;
