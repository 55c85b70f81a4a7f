-- Times that the clock jumped over while a daemon ran: they count for no age.
CREATE TABLE jumps (
    from_ms INTEGER PRIMARY KEY,
    to_ms   INTEGER NOT NULL
) STRICT;
