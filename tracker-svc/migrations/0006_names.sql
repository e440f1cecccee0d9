-- Names that people would take for one another.

-- The name with each character that is not ASCII replaced by the one it looks like, and case folded. Filled in when the
-- database is opened; NULL for a group that looked like another one before this column was there.
ALTER TABLE groups ADD COLUMN skeleton TEXT;
CREATE UNIQUE INDEX groups_by_skeleton ON groups (skeleton);

-- Variation selectors no longer make two names of one. Where both are there already, both stay.
UPDATE OR IGNORE groups SET folded = replace(replace(folded, char(0xFE0E), ''), char(0xFE0F), '')
WHERE instr(folded, char(0xFE0E)) OR instr(folded, char(0xFE0F));
UPDATE OR IGNORE files SET folded = replace(replace(folded, char(0xFE0E), ''), char(0xFE0F), '')
WHERE instr(folded, char(0xFE0E)) OR instr(folded, char(0xFE0F));
