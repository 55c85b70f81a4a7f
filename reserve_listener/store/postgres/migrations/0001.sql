-- What every replica knows. Times are milliseconds since the epoch; what they mean is said in the SQLite store's migrations.
-- Keys are compared byte by byte, whatever the database's language.

CREATE SEQUENCE events_seq;

CREATE TABLE scopes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_key text COLLATE "C" NOT NULL,
    scope_type text COLLATE "C" NOT NULL,
    scope_id   text COLLATE "C" NOT NULL,
    UNIQUE (tenant_key, scope_type, scope_id)
);
CREATE INDEX scopes_id ON scopes (scope_id);

-- Numbered in the order of their commits: whoever appends holds the append lock until its commit.
CREATE TABLE events (
    seq         bigint PRIMARY KEY,
    tenant_key  text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL,
    scope       bigint REFERENCES scopes (id),
    created_ms  bigint,
    received_ms bigint NOT NULL,
    raw         bytea,
    body        bytea,
    problem     text
);
CREATE UNIQUE INDEX events_identity ON events (tenant_key, event_id);

CREATE TABLE sinks (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name            text COLLATE "C" NOT NULL UNIQUE,
    configured      boolean NOT NULL DEFAULT true,
    had_ms          bigint NOT NULL DEFAULT 0,  -- when a replica last had it in its configuration
    disabled_ms     bigint,
    disabled_reason text
);

CREATE TABLE pauses (
    sink    bigint NOT NULL REFERENCES sinks (id),
    from_ms bigint NOT NULL,
    to_ms   bigint NOT NULL,
    PRIMARY KEY (sink, from_ms)
);

-- The keys to events and sinks are checked by nothing but the one place that writes them: a check for each row would be
-- a third of what storing an event costs. Rows are changed three times in their life, so pages keep room for that.
CREATE TABLE deliveries (
    seq        bigint NOT NULL,
    sink       bigint NOT NULL,
    scope      bigint NOT NULL,
    state      integer NOT NULL DEFAULT 0,
    attempts   integer NOT NULL DEFAULT 0,
    due_ms     bigint NOT NULL DEFAULT 0,
    settled_ms bigint,
    last_error text,
    held_ms    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (seq, sink)
) WITH (fillfactor = 80);
CREATE INDEX deliveries_pending ON deliveries (sink, seq) WHERE state = 0;
CREATE INDEX deliveries_scopes ON deliveries (sink, scope, seq) WHERE state = 0;
CREATE INDEX deliveries_due ON deliveries (sink, due_ms) WHERE state = 0 AND due_ms > 0;
CREATE INDEX deliveries_dead ON deliveries (sink, seq) WHERE state = 2;

CREATE TABLE attempts (
    seq     bigint NOT NULL,
    sink    bigint NOT NULL,
    number  bigint NOT NULL,
    at_ms   bigint NOT NULL,
    outcome text   NOT NULL,
    status  integer,
    took_ms bigint NOT NULL,
    error   text,
    PRIMARY KEY (seq, sink, number),
    FOREIGN KEY (seq, sink) REFERENCES deliveries (seq, sink) ON DELETE CASCADE
);
CREATE INDEX attempts_failed ON attempts (at_ms) WHERE outcome <> 'delivered';

CREATE TABLE apps (
    app_id            text PRIMARY KEY,
    last_connected_ms bigint NOT NULL
);

CREATE TABLE gaps (
    app_id  text   NOT NULL,
    from_ms bigint NOT NULL,
    to_ms   bigint NOT NULL,
    found   bigint,
    not_read bigint,
    PRIMARY KEY (app_id, from_ms)
);

CREATE TABLE jumps (
    from_ms bigint PRIMARY KEY,
    to_ms   bigint NOT NULL
);

CREATE TABLE states (
    scope       bigint PRIMARY KEY REFERENCES scopes (id),
    revision    bigint NOT NULL,
    created_ms  bigint,
    received_ms bigint NOT NULL,
    config      text   NOT NULL
);

CREATE TABLE history (
    seq         bigint PRIMARY KEY,
    scope       bigint NOT NULL REFERENCES scopes (id),
    event_id    text COLLATE "C" NOT NULL,
    created_ms  bigint,
    received_ms bigint NOT NULL,
    revision    bigint,
    changes     text,
    config      text   NOT NULL,
    summary     text   NOT NULL,
    origin      text
);
CREATE INDEX history_scope ON history (scope, seq);

-- What `store copy` brings from an older SQLite store, whose history is not made yet.
CREATE TABLE unbuilt (
    scope bigint NOT NULL,
    seq   bigint NOT NULL,
    PRIMARY KEY (scope, seq)
);

CREATE TABLE places (
    scope_type text COLLATE "C" NOT NULL,
    scope_id   text COLLATE "C" NOT NULL,
    name       text,
    parent     text COLLATE "C",
    top        boolean NOT NULL,
    created_ms bigint,
    seen_ms    bigint NOT NULL,
    gone_ms    bigint,
    PRIMARY KEY (scope_type, scope_id)
);
CREATE INDEX places_below ON places (parent);

CREATE TABLE people (
    open_id text PRIMARY KEY,
    name    text   NOT NULL,
    seen_ms bigint NOT NULL
);

CREATE TABLE looks (
    app_id   text   NOT NULL,
    what     text   NOT NULL,
    ended_ms bigint NOT NULL,
    PRIMARY KEY (app_id, what)
);

CREATE TABLE readings (
    scope     bigint PRIMARY KEY REFERENCES scopes (id),
    looked_ms bigint NOT NULL,
    pass      bigint NOT NULL DEFAULT 0,
    from_ms   bigint,
    until_ms  bigint,
    doubt     bigint NOT NULL DEFAULT 0
);
CREATE INDEX readings_doubted ON readings (doubt) WHERE doubt > 0;

CREATE TABLE passes (
    app_id      text PRIMARY KEY,
    number      bigint NOT NULL,
    started_ms  bigint NOT NULL,
    ended_ms    bigint,
    differences bigint NOT NULL DEFAULT 0,
    not_read    bigint NOT NULL DEFAULT 0,
    last_ended_ms bigint
);

-- What was told of alerts.
CREATE TABLE alerts (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    content bytea NOT NULL
);

-- The replicas that live, or did a moment ago.
CREATE TABLE replicas (
    id         text PRIMARY KEY,
    host       text   NOT NULL,
    pid        bigint NOT NULL,
    version    text   NOT NULL,
    seen_ms    bigint NOT NULL,
    connection text   NOT NULL,
    sinks      text[] NOT NULL
);

-- What one replica does at a time: a sink's deliveries, retention, reconciling. `fence` grows with each holder.
CREATE TABLE leases (
    name     text PRIMARY KEY,
    holder   text   NOT NULL,
    fence    bigint NOT NULL,
    until_ms bigint NOT NULL
);
