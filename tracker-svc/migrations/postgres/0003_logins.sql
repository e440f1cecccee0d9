-- Failed logins, as they are counted over all trackers: for an account from one network, for an account, and for an address.
CREATE TABLE logins (
    key      TEXT    COLLATE "C" PRIMARY KEY,
    failures BIGINT  NOT NULL,
    -- By the clock of this server, in milliseconds since 1970.
    at       BIGINT  NOT NULL,
    -- Whether the account has logged in from that network.
    known    BOOLEAN NOT NULL
);
CREATE INDEX logins_by_time ON logins (at);
