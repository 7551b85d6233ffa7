"""The tables of the jobs database: one schema for PostgreSQL and SQLite.

A change here needs a migration in serve_app/jobs/migrations. While a release is rolled out, its
processes and those of the release before share the database, so a migration only adds.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

SCHEMA_REVISION = "0001"
"""The newest migration; what this release works with."""


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC; SQLite, which knows no time zones, stores it as text in order of time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself in a column that is INTEGER, and in no other."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    # In order of creation.
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("weight", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("audio_bytes", BigInteger, nullable=False),
    Column("audio_s", Double, nullable=False),
    Column("done_s", Double, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("webhook_url", Text),
    Column("idempotency_key", Text),
    Column("request_hash", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("upload_id", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    Column("expires_at", UtcTime),
    # A queued job that is not taken before then, since it could not run; otherwise null.
    Column("not_before", UtcTime),
    # When another runner may take a running job; otherwise null.
    Column("lease_until", UtcTime),
    Column("runner", Text),
    Column("fence", BigInteger, nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("result", Text),
    Column("error", JSON(none_as_null=True)),
    # When the recording of an ended job goes; null before the end, and once it is gone.
    Column("audio_due_at", UtcTime),
    Column("removed_at", UtcTime),
    CheckConstraint(
        "status IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'expired')",
        name="status",
    ),
    sqlite_autoincrement=True,
)

_QUEUED = text("status = 'queued'")
_RUNNING = text("status = 'running'")
_READY = text("status = 'queued' AND not_before IS NULL")

Index("ix_jobs_id", jobs.c.id, unique=True)
Index("ix_jobs_idempotency_key", jobs.c.key, jobs.c.idempotency_key, unique=True)
Index("ix_jobs_key", jobs.c.key, jobs.c.sequence)
Index("ix_jobs_key_status", jobs.c.key, jobs.c.status, jobs.c.sequence)
Index(
    "ix_jobs_ready",
    jobs.c.key,
    jobs.c.priority.desc(),
    jobs.c.sequence,
    postgresql_where=_READY,
    sqlite_where=_READY,
)
Index(
    "ix_jobs_queued",
    jobs.c.key,
    jobs.c.priority.desc(),
    jobs.c.sequence,
    jobs.c.audio_s,
    postgresql_where=_QUEUED,
    sqlite_where=_QUEUED,
)
Index("ix_jobs_waiting_since", jobs.c.created_at, postgresql_where=_QUEUED, sqlite_where=_QUEUED)
Index("ix_jobs_lease_until", jobs.c.lease_until, postgresql_where=_RUNNING, sqlite_where=_RUNNING)
for _column in (jobs.c.not_before, jobs.c.expires_at):
    _where = text(f"status = 'queued' AND {_column.name} IS NOT NULL")
    Index(f"ix_jobs_{_column.name}", _column, postgresql_where=_where, sqlite_where=_where)
for _column in (jobs.c.audio_due_at, jobs.c.removed_at):
    _where = text(f"{_column.name} IS NOT NULL")
    Index(f"ix_jobs_{_column.name}", _column, postgresql_where=_where, sqlite_where=_where)

job_keys = Table(
    "job_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("weight", Double, nullable=False),
    # Start-time fair queueing: the key whose next job has the lowest one is served next.
    Column("virtual_time", Double, nullable=False),
    Column("num_queued", Integer, nullable=False),
    # Without those that have a `not_before`.
    Column("num_ready", Integer, nullable=False),
    Column("queued_audio_s", Double, nullable=False),
)
_HAS_READY = text("num_ready > 0")
_HAS_QUEUED = text("num_queued > 0")
Index(
    "ix_job_keys_ready",
    job_keys.c.virtual_time,
    job_keys.c.key,
    postgresql_where=_HAS_READY,
    sqlite_where=_HAS_READY,
)
Index(
    "ix_job_keys_queued",
    job_keys.c.virtual_time,
    postgresql_where=_HAS_QUEUED,
    sqlite_where=_HAS_QUEUED,
)

# One row: the start of the job that was leased last, in virtual time of all keys.
job_clock = Table(
    "job_clock",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("virtual_time", Double, nullable=False),
)

deliveries = Table(
    "webhook_deliveries",
    metadata,
    # Not a foreign key: a message may outlive its job, whose results are kept for a short time.
    Column("job_id", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("num_attempts", Integer, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    # When the next attempt is due; of one that is under way, when another runner may take it.
    Column("due_at", UtcTime, nullable=False),
    Column("runner", Text),
    Column("fence", BigInteger, nullable=False),
    CheckConstraint("state IN ('pending', 'delivered', 'undelivered')", name="state"),
)
_PENDING = text("state = 'pending'")
Index(
    "ix_webhook_deliveries_due_at",
    deliveries.c.due_at,
    postgresql_where=_PENDING,
    sqlite_where=_PENDING,
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False),
    Column("length_bytes", BigInteger, nullable=False),
    Column("offset_bytes", BigInteger, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    # The job that has taken it; null before.
    Column("job_id", Text),
)
_OPEN = text("job_id IS NULL")
Index(
    "ix_uploads_open",
    uploads.c.key,
    uploads.c.expires_at,
    postgresql_where=_OPEN,
    sqlite_where=_OPEN,
)
Index("ix_uploads_expires_at", uploads.c.expires_at, postgresql_where=_OPEN, sqlite_where=_OPEN)

usage = Table(
    "usage",
    metadata,
    Column("month", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("audio_s", Double, nullable=False),
    Column("num_requests", BigInteger, nullable=False),
)
