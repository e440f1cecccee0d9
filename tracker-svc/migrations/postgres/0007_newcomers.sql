-- New accounts of each network, as they are counted over all trackers.
CREATE TABLE newcomers (
    network TEXT   COLLATE "C" PRIMARY KEY,
    -- When all of them are paid off, one after the other. By the clock of this server, in milliseconds since 1970.
    due     BIGINT NOT NULL
);
