-- Rooms and levels that a pass could not read, also over a restart; and when a whole one last ended.
ALTER TABLE passes ADD COLUMN not_read INTEGER NOT NULL DEFAULT 0;
ALTER TABLE passes ADD COLUMN last_ended_ms INTEGER;
UPDATE passes SET last_ended_ms = ended_ms WHERE ended_ms > 0;

-- The same of the pass whose result the gap has.
ALTER TABLE gaps ADD COLUMN not_read INTEGER;
UPDATE gaps SET not_read = 0 WHERE found IS NOT NULL;
