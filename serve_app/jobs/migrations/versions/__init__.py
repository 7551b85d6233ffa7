"""Each module is one step of the schema; Alembic finds them by their `revision`."""
