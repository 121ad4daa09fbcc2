"""Objects at rest, in one SQLite file; every command is one transaction."""
