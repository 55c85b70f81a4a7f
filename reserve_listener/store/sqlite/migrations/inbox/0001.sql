-- Pushes that are answered and not in the store yet, batch by batch.
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    events BLOB    NOT NULL    -- `store/inbox.py` says how
) STRICT;

-- Which inbox this is: a store that was fed from another one has none of it.
CREATE TABLE inbox (id TEXT NOT NULL) STRICT;
INSERT INTO inbox (id) VALUES (lower(hex(randomblob(16))));
