"""What every kind of store does: the work on rows, written once in the SQL that SQLite and PostgreSQL share."""
