"""What Alembic runs for each command; see `serve_app.jobs.migrations`."""

from __future__ import annotations

from alembic import context

from serve_app.jobs.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
