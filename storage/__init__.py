"""The core's storage ports on SQLAlchemy: SQLite and PostgreSQL."""
