-- Folders. Both columns are set if the file is the virtual file of a folder.
ALTER TABLE files ADD COLUMN folder_files INTEGER CHECK (folder_files BETWEEN 0 AND 1000000);
ALTER TABLE files ADD COLUMN index_length INTEGER CHECK (index_length BETWEEN 0 AND length);
