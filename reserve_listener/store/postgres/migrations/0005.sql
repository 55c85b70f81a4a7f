-- What a command asks of the replicas, and what they answer. `replica`: the one that is asked; else all, or whoever leads that.
CREATE TABLE requests (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    what    text   NOT NULL,
    replica text,
    content bytea  NOT NULL,
    at_ms   bigint NOT NULL
);

-- One replica may answer several times, while it is at it.
CREATE TABLE answers (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    request bigint NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    replica text   NOT NULL,
    content bytea  NOT NULL
);
CREATE INDEX answers_request ON answers (request, number);
