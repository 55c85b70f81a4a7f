-- The last attempts at each delivery that failed at least once, what succeeded in the end among them.
CREATE TABLE attempts (
    seq      INTEGER NOT NULL,
    sink     INTEGER NOT NULL,
    number   INTEGER NOT NULL,   -- in the order of being made, whatever the clock said
    at_ms    INTEGER NOT NULL,   -- when it ended
    outcome  TEXT    NOT NULL,   -- delivered, retry or dead
    status   INTEGER,            -- the receiver's HTTP status, if it answered
    took_ms  INTEGER NOT NULL,
    error    TEXT,
    PRIMARY KEY (seq, sink, number),
    FOREIGN KEY (seq, sink) REFERENCES deliveries (seq, sink) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_failed ON attempts (at_ms) WHERE outcome <> 'delivered';
