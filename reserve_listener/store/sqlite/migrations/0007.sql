-- What the platform was asked about each room and level.
CREATE TABLE readings (
    scope     INTEGER PRIMARY KEY REFERENCES scopes (id),
    looked_ms INTEGER NOT NULL,            -- when it was last asked for, whatever came of it
    pass      INTEGER NOT NULL DEFAULT 0,  -- the last pass that is done with it
    from_ms   INTEGER,                     -- the last answer that counted: it is from between these two,
    until_ms  INTEGER,                     --   on the platform's clock; NULL: there was none
    doubt     INTEGER NOT NULL DEFAULT 0   -- 0: none; else it is to be read again: the which attempt that will be
) STRICT;
CREATE INDEX readings_doubted ON readings (doubt) WHERE doubt > 0;

-- The last pass over all rooms and levels, for each app.
CREATE TABLE passes (
    app_id      TEXT    PRIMARY KEY,
    number      INTEGER NOT NULL,            -- unique among all apps
    started_ms  INTEGER NOT NULL,
    ended_ms    INTEGER,                     -- NULL: it is to be finished
    differences INTEGER NOT NULL DEFAULT 0   -- found so far
) STRICT, WITHOUT ROWID;

-- What reconciling found after a gap: how many changes, once it has ended.
ALTER TABLE gaps ADD COLUMN found INTEGER;
