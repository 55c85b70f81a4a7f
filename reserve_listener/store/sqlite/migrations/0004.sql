-- How far the inbox beside the store is projected: its random id, and the number of the last batch that is in here.
CREATE TABLE inbox (
    inbox  TEXT    NOT NULL,
    number INTEGER NOT NULL
) STRICT;
INSERT INTO inbox (inbox, number) VALUES ('', 0);
