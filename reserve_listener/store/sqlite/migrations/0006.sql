-- Rooms and levels by name, as the platform's API and its events tell of them. Never dropped: what is gone is marked.
-- The API knows no tenant; ids are the platform's, and no two tenants share one.
CREATE TABLE places (
    scope_type TEXT    NOT NULL,   -- room or level
    scope_id   TEXT    NOT NULL,
    name       TEXT,               -- safe to show; NULL: only that it is gone was told
    parent     TEXT,               -- the level that it is in; NULL: the organisation's root, or not told
    top        INTEGER NOT NULL,   -- 1: nothing but the organisation's root is above it
    created_ms INTEGER,            -- the create_time of the last event of it
    seen_ms    INTEGER NOT NULL,   -- as of when this is known, on our clock
    gone_ms    INTEGER,            -- since when it is known to be gone
    PRIMARY KEY (scope_type, scope_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX places_below ON places (parent);

-- Names of people, as the API tells them.
CREATE TABLE people (
    open_id TEXT    PRIMARY KEY,
    name    TEXT    NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- When all names of a kind were last asked for, to the end.
CREATE TABLE looks (
    app_id   TEXT    NOT NULL,
    what     TEXT    NOT NULL,     -- places or people
    ended_ms INTEGER NOT NULL,
    PRIMARY KEY (app_id, what)
) STRICT, WITHOUT ROWID;
