-- Everything the daemon knows. Times are milliseconds since the epoch.

-- One row a push, in the order of arrival (seq). An unreadable push has no body and no scope, but a problem.
CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_key  TEXT    NOT NULL,
    event_id    TEXT    NOT NULL,   -- header.event_id, or sha256:… of an unreadable push
    scope       INTEGER REFERENCES scopes (id),
    created_ms  INTEGER,            -- header.create_time
    received_ms INTEGER NOT NULL,   -- when it was stored: what ages count from
    raw         BLOB,               -- the payload, verification token removed; NULL: dropped at the size bound, still known
    body        BLOB,               -- the CloudEvents JSON that sinks receive
    problem     TEXT                -- why it is unreadable
) STRICT;
CREATE UNIQUE INDEX events_identity ON events (tenant_key, event_id);

-- A meeting room or a room level of a tenant.
CREATE TABLE scopes (
    id         INTEGER PRIMARY KEY,
    tenant_key TEXT NOT NULL,
    scope_type TEXT NOT NULL,
    scope_id   TEXT NOT NULL,
    UNIQUE (tenant_key, scope_type, scope_id)
) STRICT;

-- The sinks that were ever configured, known by name.
CREATE TABLE sinks (
    id              INTEGER PRIMARY KEY,
    name            TEXT    NOT NULL UNIQUE,
    configured      INTEGER NOT NULL DEFAULT 1,  -- 0: not in the configuration of the last start
    disabled_ms     INTEGER,                     -- since when it gets nothing; NULL: it is enabled
    disabled_reason TEXT
) STRICT;

-- Times during which a sink was disabled: they do not count for the age of its deliveries.
CREATE TABLE pauses (
    sink    INTEGER NOT NULL REFERENCES sinks (id),
    from_ms INTEGER NOT NULL,
    to_ms   INTEGER NOT NULL,
    PRIMARY KEY (sink, from_ms)
) STRICT, WITHOUT ROWID;

-- One row for each event and sink. state: 0 pending, 1 delivered, 2 dead letter.
CREATE TABLE deliveries (
    seq        INTEGER NOT NULL REFERENCES events (seq),
    sink       INTEGER NOT NULL REFERENCES sinks (id),
    scope      INTEGER NOT NULL,
    state      INTEGER NOT NULL DEFAULT 0,
    attempts   INTEGER NOT NULL DEFAULT 0,
    due_ms     INTEGER NOT NULL DEFAULT 0,  -- not before; 0 until an attempt has failed
    settled_ms INTEGER,
    last_error TEXT,
    held_ms    INTEGER NOT NULL DEFAULT 0,  -- time that does not count for its age: before a retry or replay by hand
    PRIMARY KEY (seq, sink)
) STRICT, WITHOUT ROWID;
-- What waits for a sink, scope by scope: small, since it forgets what is settled. With the state in it, counting and
-- finding the first need not look at the rows.
CREATE INDEX deliveries_pending ON deliveries (sink, scope, seq, state) WHERE state = 0;
-- What failed and waits for its time.
CREATE INDEX deliveries_due ON deliveries (sink, due_ms) WHERE state = 0 AND due_ms > 0;
CREATE INDEX deliveries_dead ON deliveries (sink, seq) WHERE state = 2;

-- Apps that were connected at least once: a refusal at start is final only for others.
CREATE TABLE apps (
    app_id            TEXT    PRIMARY KEY,
    last_connected_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Times without a connection that were longer than the platform pushes again: events of them may be lost.
CREATE TABLE gaps (
    app_id  TEXT    NOT NULL,
    from_ms INTEGER NOT NULL,
    to_ms   INTEGER NOT NULL,
    PRIMARY KEY (app_id, from_ms)
) STRICT, WITHOUT ROWID;
