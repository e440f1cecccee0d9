-- What each group and each user has listed: kept by triggers, also for trackers of the version before.

-- The lock of the write transactions: none of them may list a file between the count and the new trigger.
SELECT pg_advisory_xact_lock(1835626089, 1);

ALTER TABLE groups ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0 CHECK (bytes >= 0);
ALTER TABLE accounts ADD COLUMN files BIGINT NOT NULL DEFAULT 0 CHECK (files >= 0);
ALTER TABLE accounts ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0 CHECK (bytes >= 0);

UPDATE groups SET bytes = COALESCE((SELECT sum(length) FROM files WHERE group_id = groups.id), 0);
UPDATE accounts SET files = listed.files, bytes = listed.bytes
  FROM (SELECT publisher, count(*) AS files, sum(length) AS bytes FROM files GROUP BY publisher) AS listed
 WHERE accounts.id = listed.publisher;

CREATE OR REPLACE FUNCTION file_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE groups SET files = files + 1, bytes = bytes + NEW.length WHERE id = NEW.group_id;
        UPDATE accounts SET files = files + 1, bytes = bytes + NEW.length WHERE id = NEW.publisher;
    ELSE
        UPDATE groups SET files = files - 1, bytes = bytes - OLD.length WHERE id = OLD.group_id;
        UPDATE accounts SET files = files - 1, bytes = bytes - OLD.length WHERE id = OLD.publisher;
        UPDATE manifests SET state = 2 WHERE id = OLD.manifest;
    END IF;
    RETURN NULL;
END $$;
