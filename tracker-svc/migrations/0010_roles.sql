-- Roles of members. 2: reader, 3: member, 4: manager. The owner is in `groups`.

ALTER TABLE members ADD COLUMN role INTEGER NOT NULL DEFAULT 3 CHECK (role BETWEEN 2 AND 4);
