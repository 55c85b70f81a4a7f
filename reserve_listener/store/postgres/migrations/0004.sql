-- What a replica tells the others of itself, as JSON: whether it is connected, and how the sinks do that it works.
ALTER TABLE replicas ADD COLUMN told bytea;
