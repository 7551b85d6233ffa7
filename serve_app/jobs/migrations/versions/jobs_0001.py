"""The first schema: jobs, webhooks, uploads and usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "job_clock",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("virtual_time", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_clock"),
    )
    op.create_table(
        "job_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("virtual_time", sa.Double(), nullable=False),
        sa.Column("num_queued", sa.Integer(), nullable=False),
        sa.Column("num_ready", sa.Integer(), nullable=False),
        sa.Column("queued_audio_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_job_keys"),
    )
    op.create_index(
        "ix_job_keys_queued",
        "job_keys",
        ["virtual_time"],
        postgresql_where=sa.text("num_queued > 0"),
        sqlite_where=sa.text("num_queued > 0"),
    )
    op.create_index(
        "ix_job_keys_ready",
        "job_keys",
        ["virtual_time", "key"],
        postgresql_where=sa.text("num_ready > 0"),
        sqlite_where=sa.text("num_ready > 0"),
    )
    op.create_table(
        "jobs",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("audio_bytes", sa.BigInteger(), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("done_s", sa.Double(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("webhook_url", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("runner", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("audio_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'completed', 'failed', 'cancelled', 'expired')",
            name="ck_jobs_status",
        ),
        sa.PrimaryKeyConstraint("sequence", name="pk_jobs"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_jobs_audio_due_at",
        "jobs",
        ["audio_due_at"],
        postgresql_where=sa.text("audio_due_at IS NOT NULL"),
        sqlite_where=sa.text("audio_due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_expires_at",
        "jobs",
        ["expires_at"],
        postgresql_where=sa.text("status = 'queued' AND expires_at IS NOT NULL"),
        sqlite_where=sa.text("status = 'queued' AND expires_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_id", "jobs", ["id"], unique=True)
    op.create_index("ix_jobs_idempotency_key", "jobs", ["key", "idempotency_key"], unique=True)
    op.create_index("ix_jobs_key", "jobs", ["key", "sequence"])
    op.create_index("ix_jobs_key_status", "jobs", ["key", "status", "sequence"])
    op.create_index(
        "ix_jobs_lease_until",
        "jobs",
        ["lease_until"],
        postgresql_where=sa.text("status = 'running'"),
        sqlite_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "ix_jobs_not_before",
        "jobs",
        ["not_before"],
        postgresql_where=sa.text("status = 'queued' AND not_before IS NOT NULL"),
        sqlite_where=sa.text("status = 'queued' AND not_before IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["key", sa.literal_column("priority DESC"), "sequence", "audio_s"],
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["key", sa.literal_column("priority DESC"), "sequence"],
        postgresql_where=sa.text("status = 'queued' AND not_before IS NULL"),
        sqlite_where=sa.text("status = 'queued' AND not_before IS NULL"),
    )
    op.create_index(
        "ix_jobs_removed_at",
        "jobs",
        ["removed_at"],
        postgresql_where=sa.text("removed_at IS NOT NULL"),
        sqlite_where=sa.text("removed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_waiting_since",
        "jobs",
        ["created_at"],
        postgresql_where=sa.text("status = 'queued'"),
        sqlite_where=sa.text("status = 'queued'"),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("length_bytes", sa.BigInteger(), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_uploads"),
    )
    op.create_index(
        "ix_uploads_expires_at",
        "uploads",
        ["expires_at"],
        postgresql_where=sa.text("job_id IS NULL"),
        sqlite_where=sa.text("job_id IS NULL"),
    )
    op.create_index(
        "ix_uploads_open",
        "uploads",
        ["key", "expires_at"],
        postgresql_where=sa.text("job_id IS NULL"),
        sqlite_where=sa.text("job_id IS NULL"),
    )
    op.create_table(
        "usage",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("audio_s", sa.Double(), nullable=False),
        sa.Column("num_requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", "key", "kind", name="pk_usage"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("num_attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("runner", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'undelivered')", name="ck_webhook_deliveries_state"
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_webhook_deliveries"),
    )
    op.create_index(
        "ix_webhook_deliveries_due_at",
        "webhook_deliveries",
        ["due_at"],
        postgresql_where=sa.text("state = 'pending'"),
        sqlite_where=sa.text("state = 'pending'"),
    )
    op.execute("INSERT INTO job_clock (id, virtual_time) VALUES (1, 0)")
