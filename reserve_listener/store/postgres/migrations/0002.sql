-- What `store copy` brings from SQLite's inbox: pushes that are answered and not events yet. The first replica makes them.
CREATE TABLE batches (
    number bigint PRIMARY KEY,
    events bytea  NOT NULL
);
