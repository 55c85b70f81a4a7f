-- What is known of each room and level: never pruned.
CREATE TABLE states (
    scope       INTEGER PRIMARY KEY REFERENCES scopes (id),
    revision    INTEGER NOT NULL,  -- of its last event; 0: it was asked for, and nothing was heard of it yet
    created_ms  INTEGER,           -- the create_time that it rests on
    received_ms INTEGER NOT NULL,
    config      TEXT    NOT NULL   -- the configuration, as JSON
) STRICT;

-- What each event changed: kept longer than the event.
CREATE TABLE history (
    seq         INTEGER PRIMARY KEY,  -- of the event
    scope       INTEGER NOT NULL REFERENCES scopes (id),
    event_id    TEXT    NOT NULL,
    created_ms  INTEGER,
    received_ms INTEGER NOT NULL,
    revision    INTEGER,              -- NULL: superseded
    changes     TEXT,                 -- as JSON; NULL: there was nothing to compare with
    config      TEXT    NOT NULL,     -- what is known after it, as JSON; of a superseded one what it told
    summary     TEXT    NOT NULL,     -- as it was said to the sinks
    origin      TEXT                  -- 'reconcile': found by asking
) STRICT;
CREATE INDEX history_scope ON history (scope, seq);

-- Events of an older store that are not in the two yet.
CREATE TABLE unbuilt (
    scope INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    PRIMARY KEY (scope, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO unbuilt (scope, seq)
SELECT scope, seq FROM events WHERE scope IS NOT NULL AND body IS NOT NULL ORDER BY scope, seq;
