"""The store of jobs, in memory, with the rules of the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from serve_app.core.job_errors import (
    IdempotencyConflict,
    JobNotFound,
    NoWebhook,
    QueueFull,
    TooManyUploads,
    UploadConflict,
    UploadNotFound,
)
from serve_app.jobs.job_json import message_id, webhook_body
from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import (
    Delivery,
    DeliveryState,
    Job,
    JobBacklog,
    JobError,
    JobLimits,
    JobStatus,
    Lease,
    NewJob,
    Page,
    ResumableUpload,
    Usage,
    UsageKind,
    attempts_exhausted,
)


@dataclass(slots=True)
class _Row:
    job: Job
    new: NewJob
    sequence: int
    fence: int = 0
    lease_until: datetime | None = None
    not_before: datetime | None = None
    audio_due_at: datetime | None = None


@dataclass(slots=True)
class _Message:
    delivery: Delivery
    due_at: datetime
    state: DeliveryState = "pending"


@dataclass(slots=True)
class _Key:
    virtual_time: float = 0.0
    weight: float = 1.0


@dataclass(slots=True)
class _Tables:
    rows: dict[str, _Row] = field(default_factory=dict)
    keys: dict[str, _Key] = field(default_factory=dict)
    messages: dict[str, _Message] = field(default_factory=dict)
    uploads: dict[str, ResumableUpload] = field(default_factory=dict)
    usage: dict[tuple[str, str, UsageKind], Usage] = field(default_factory=dict)
    virtual_time: float = 0.0
    num_created: int = 0


class MemoryStore:
    """Keeps jobs in dictionaries.

    Args:
        limits: as of the real store.
        clock: returns the present time in UTC.

    Attributes:
        fault: raised by every method while it is set.
    """

    def __init__(
        self,
        limits: JobLimits | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.fault: Exception | None = None
        self._limits = limits or JobLimits()
        self._clock = clock
        self._tables = _Tables()
        self._wake = asyncio.Event()

    # --- by callers -------------------------------------------------------------------------

    async def create(self, job: NewJob) -> tuple[Job, bool]:
        self._check()
        tables = self._tables
        for row in tables.rows.values():
            if row.job.id == job.id:
                return self._shown(row), True
            if job.idempotency_key is not None and (
                (row.new.key, row.new.idempotency_key) == (job.key, job.idempotency_key)
            ):
                if row.new.request_hash != job.request_hash:
                    raise IdempotencyConflict
                return self._shown(row), False
        if len(self._queued(job.key)) >= self._limits.max_queued:
            raise QueueFull(self._limits.max_queued)
        if job.upload_id is not None:
            await self.get_upload(job.key, job.upload_id)
            if self._is_taken(job.upload_id):
                raise UploadNotFound(job.upload_id)
        tables.num_created += 1
        created = Job(
            id=job.id,
            key=job.key,
            weight=job.weight,
            status="queued",
            created_at=self._clock(),
            audio_bytes=job.audio_bytes,
            audio_s=job.audio_s,
            priority=job.priority,
            metadata=dict(job.metadata),
            webhook_url=job.webhook_url,
            expires_at=job.expires_at,
            request_id=job.request_id,
            upload_id=job.upload_id,
        )
        row = tables.rows[job.id] = _Row(created, job, tables.num_created)
        tables.keys.setdefault(job.key, _Key()).weight = job.weight
        self._wake.set()
        return self._shown(row), True

    async def get(self, key: str, job_id: str) -> Job:
        self._check()
        return self._shown(self._row(key, job_id))

    async def position(self, job: Job) -> int | None:
        self._check()
        row = self._tables.rows.get(job.id)
        if row is None or row.job.status != "queued":
            return None
        order: list[tuple[float, str]] = []
        for key in {other.job.key for other in self._tables.rows.values()}:
            start = self._tables.keys[key].virtual_time
            for other in self._queued(key):
                order.append((start, other.job.id))
                start += _cost(other.job)
        order.sort(key=lambda entry: entry[0])
        return min(1000, [job_id for _, job_id in order].index(job.id))

    async def list(
        self,
        key: str,
        *,
        statuses: Sequence[JobStatus] = (),
        after: str | None = None,
        limit: int = 20,
    ) -> Page:
        self._check()
        last = None if after is None else self._row(key, after).sequence
        rows = [
            row
            for row in self._tables.rows.values()
            if row.job.key == key
            and (not statuses or row.job.status in statuses)
            and (last is None or row.sequence < last)
        ]
        rows.sort(key=lambda row: -row.sequence)
        return Page(tuple(self._shown(row) for row in rows[:limit]), len(rows) > limit)

    async def cancel(self, key: str, job_id: str) -> Job:
        self._check()
        row = self._row(key, job_id)
        if not row.job.is_final:
            row.fence += 1
            self._end(row, "cancelled")
        return self._shown(row)

    async def delete(self, key: str, job_id: str) -> None:
        self._check()
        self._remove(self._row(key, job_id))
        self._tables.messages.pop(job_id, None)

    async def versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        self._check()
        rows = self._tables.rows
        return {job_id: rows[job_id].job.version for job_id in ids if job_id in rows}

    async def open_audio_s(self, key: str) -> float:
        self._check()
        jobs = (row.job for row in self._tables.rows.values())
        return sum(job.audio_s for job in jobs if job.key == key and not job.is_final)

    # --- by runners -------------------------------------------------------------------------

    async def lease(self, runner: str, lease_s: float) -> Lease | None:
        self._check()
        now = self._clock()
        lost = [row for row in self._tables.rows.values() if self._is_lost(row)]
        for row in sorted(lost, key=lambda row: row.lease_until or now):
            if row.job.num_attempts < self._limits.max_attempts:
                return self._take(row, runner, lease_s)
            row.fence += 1
            self._end(row, "failed", error=attempts_exhausted(row.job.num_attempts))
        ready = [row for row in self._tables.rows.values() if self._is_ready(row)]
        keys = {row.job.key for row in ready}
        if not keys:
            return None
        name = min(keys, key=lambda key: (self._tables.keys[key].virtual_time, key))
        key = self._tables.keys[name]
        row = next(row for row in self._queued(name) if row in ready)
        start = max(key.virtual_time, self._tables.virtual_time)
        self._tables.virtual_time = start
        key.virtual_time = start + _cost(row.job)
        return self._take(row, runner, lease_s)

    async def renew(self, lease: Lease, lease_s: float, done_s: float) -> bool:
        self._check()
        row = self._held(lease)
        if row is None:
            return False
        row.lease_until = self._clock() + timedelta(seconds=lease_s)
        if done_s > row.job.done_s:
            self._change(row, done_s=done_s)
        return True

    async def hand_back(self, lease: Lease, after_s: float = 0.0) -> None:
        self._check()
        row = self._held(lease)
        if row is None:
            return
        self._tables.keys[row.job.key].virtual_time -= _cost(row.job)
        self._change(row, status="queued", num_attempts=row.job.num_attempts - 1)
        row.lease_until = None
        row.not_before = self._clock() + timedelta(seconds=after_s)
        self._wake.set()

    async def complete(self, lease: Lease, result: str, audio_s: float) -> bool:
        self._check()
        row = self._held(lease)
        if row is None:
            return self._was_ended_by(lease, "completed")
        key = self._tables.keys[row.job.key]
        before = _cost(row.job)
        self._end(row, "completed", result=result, audio_s=audio_s, done_s=audio_s)
        key.virtual_time += _cost(row.job) - before
        self._add(Usage(row.job.key, f"{self._clock():%Y-%m}", "job", audio_s, 1))
        return True

    async def fail(self, lease: Lease, error: JobError) -> bool:
        self._check()
        row = self._held(lease)
        if row is None:
            return self._was_ended_by(lease, "failed")
        self._end(row, "failed", error=error)
        return True

    async def backlog(self) -> JobBacklog:
        self._check()
        rows = self._tables.rows.values()
        lost = [row.job for row in rows if self._is_lost(row)]
        queued = [row.job for row in rows if row.job.status == "queued"]
        running = [row.job for row in rows if row.job.status == "running" and row.job not in lost]
        return JobBacklog(
            num_queued=len(queued) + len(lost),
            queued_audio_s=sum(job.audio_s for job in queued) + sum(map(_left_s, lost)),
            num_running=len(running),
            running_audio_s=sum(map(_left_s, running)),
            oldest_queued_at=min((job.created_at for job in queued + lost), default=None),
        )

    async def wait(self, timeout_s: float) -> None:
        self._check()
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return
        self._wake.clear()

    # --- webhooks ---------------------------------------------------------------------------

    async def take_delivery(self, runner: str, lease_s: float) -> Delivery | None:
        self._check()
        now = self._clock()
        due = [
            message
            for message in self._tables.messages.values()
            if message.state == "pending" and message.due_at <= now
        ]
        if not due:
            return None
        message = min(due, key=lambda message: message.due_at)
        message.due_at = now + timedelta(seconds=lease_s)
        message.delivery = replace(message.delivery, fence=message.delivery.fence + 1)
        self._wake.set()
        return message.delivery

    async def delivered(self, delivery: Delivery) -> None:
        self._check()
        self._after_attempt(delivery, "delivered", None)

    async def postpone(self, delivery: Delivery, until: datetime | None) -> None:
        self._check()
        self._after_attempt(delivery, "undelivered" if until is None else "pending", until)

    async def redeliver(self, key: str, job_id: str) -> Job:
        self._check()
        row = self._row(key, job_id)
        message = self._tables.messages.get(job_id)
        if message is None:
            raise NoWebhook
        fence = message.delivery.fence + 1
        message.delivery = replace(message.delivery, num_attempts=0, fence=fence)
        message.state, message.due_at = "pending", self._clock()
        self._change(row)
        self._wake.set()
        return self._shown(row)

    # --- resumable uploads ------------------------------------------------------------------

    async def create_upload(self, upload: ResumableUpload, max_open: int) -> None:
        self._check()
        now = self._clock()
        is_open = [
            other.key == upload.key and other.expires_at > now and not self._is_taken(other.id)
            for other in self._tables.uploads.values()
        ]
        if sum(is_open) >= max_open:
            raise TooManyUploads(max_open)
        self._tables.uploads[upload.id] = upload

    async def get_upload(self, key: str, upload_id: str) -> ResumableUpload:
        self._check()
        upload = self._tables.uploads.get(upload_id)
        is_there = upload is not None and (
            upload.expires_at > self._clock() or self._is_taken(upload_id)
        )
        if upload is None or upload.key != key or not is_there:
            raise UploadNotFound(upload_id)
        return upload

    async def add_part(
        self, key: str, upload_id: str, offset_bytes: int, num_bytes: int
    ) -> ResumableUpload:
        upload = await self.get_upload(key, upload_id)
        fits = offset_bytes + num_bytes <= upload.length_bytes
        if upload.offset_bytes != offset_bytes or not fits:
            raise UploadConflict(upload.offset_bytes)
        changed = replace(
            upload, offset_bytes=offset_bytes + num_bytes, parts=(*upload.parts, num_bytes)
        )
        self._tables.uploads[upload_id] = changed
        return changed

    async def delete_upload(self, key: str, upload_id: str) -> None:
        await self.get_upload(key, upload_id)
        if self._is_taken(upload_id):
            raise UploadNotFound(upload_id)
        del self._tables.uploads[upload_id]

    # --- retention --------------------------------------------------------------------------

    async def expire(self) -> int:
        self._check()
        now = self._clock()
        late = [
            row
            for row in self._tables.rows.values()
            if row.job.status == "queued"
            and row.job.started_at is None
            and row.job.expires_at is not None
            and row.job.expires_at <= now
        ]
        for row in late:
            self._end(row, "expired")
        return len(late)

    async def due_for_removal(self, limit: int) -> Sequence[str]:
        self._check()
        now = self._clock()
        due = [
            row
            for row in self._tables.rows.values()
            if row.job.removed_at is not None and row.job.removed_at <= now
        ][:limit]
        for row in due:
            self._remove(row)
        uploads = [
            upload_id
            for upload_id, upload in self._tables.uploads.items()
            if upload.expires_at <= now and not self._is_taken(upload_id)
        ][: limit - len(due)]
        for upload_id in uploads:
            del self._tables.uploads[upload_id]
        taken = [row.job.upload_id for row in due if row.job.upload_id is not None]
        return [*(row.job.id for row in due), *taken, *uploads]

    async def audio_due_for_removal(self, limit: int) -> Sequence[str]:
        self._check()
        now = self._clock()
        due = [
            row
            for row in self._tables.rows.values()
            if row.audio_due_at is not None and row.audio_due_at <= now
        ][:limit]
        for row in due:
            row.audio_due_at = None
            self._release_upload(row)
        return [row.job.id for row in due]

    async def known(self, ids: Iterable[str]) -> frozenset[str]:
        self._check()
        return frozenset(ids) & {*self._tables.rows, *self._tables.uploads}

    # --- usage ------------------------------------------------------------------------------

    async def add_usage(self, usage: Sequence[Usage]) -> None:
        self._check()
        for entry in usage:
            self._add(entry)

    async def usage(self, month: str, key: str | None = None) -> Sequence[Usage]:
        self._check()
        found = [
            usage
            for usage in self._tables.usage.values()
            if usage.month == month and key in (None, usage.key)
        ]
        return sorted(found, key=lambda usage: (usage.key, usage.kind))

    async def close(self) -> None:
        return None

    # --- the rules --------------------------------------------------------------------------

    def _check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _row(self, key: str, job_id: str) -> _Row:
        row = self._tables.rows.get(job_id)
        if row is None or row.job.key != key:
            raise JobNotFound(job_id)
        return row

    def _shown(self, row: _Row) -> Job:
        message = self._tables.messages.get(row.job.id)
        if message is None:
            return row.job
        attempts = message.delivery.num_attempts
        return replace(row.job, webhook=message.state, webhook_attempts=attempts)

    def _queued(self, key: str) -> Sequence[_Row]:
        rows = [
            row
            for row in self._tables.rows.values()
            if row.job.key == key and row.job.status == "queued"
        ]
        return sorted(rows, key=lambda row: (-row.job.priority, row.sequence))

    def _is_lost(self, row: _Row) -> bool:
        until = row.lease_until
        return row.job.status == "running" and until is not None and until <= self._clock()

    def _is_ready(self, row: _Row) -> bool:
        is_due = row.not_before is None or row.not_before <= self._clock()
        return row.job.status == "queued" and is_due

    def _take(self, row: _Row, runner: str, lease_s: float) -> Lease:
        now = self._clock()
        row.fence += 1
        row.lease_until = now + timedelta(seconds=lease_s)
        self._change(
            row,
            status="running",
            started_at=row.job.started_at or now,
            num_attempts=row.job.num_attempts + 1,
        )
        self._wake.set()
        return Lease(self._shown(row), row.fence, runner)

    def _held(self, lease: Lease) -> _Row | None:
        row = self._tables.rows.get(lease.job.id)
        is_held = row is not None and row.job.status == "running" and row.fence == lease.fence
        return row if is_held else None

    def _was_ended_by(self, lease: Lease, status: JobStatus) -> bool:
        row = self._tables.rows.get(lease.job.id)
        return row is not None and row.job.status == status and row.fence == lease.fence

    def _change(self, row: _Row, **changes: object) -> None:
        row.job = replace(row.job, version=row.job.version + 1, **changes)  # type: ignore[arg-type]

    def _end(self, row: _Row, status: JobStatus, **changes: object) -> None:
        now = self._clock()
        row.lease_until = None
        row.audio_due_at = now + timedelta(seconds=self._limits.keep_audio_s)
        removed_at = now + timedelta(seconds=self._limits.keep_results_s)
        self._change(row, status=status, finished_at=now, removed_at=removed_at, **changes)
        if row.job.webhook_url is None:
            return
        self._tables.messages[row.job.id] = _Message(
            Delivery(
                id=message_id(row.job.id),
                job_id=row.job.id,
                key=row.job.key,
                url=row.job.webhook_url,
                body=webhook_body(replace(row.job, webhook="pending")),
                num_attempts=0,
                created_at=now,
                fence=0,
            ),
            now,
        )
        self._wake.set()

    def _remove(self, row: _Row) -> None:
        del self._tables.rows[row.job.id]
        if row.job.upload_id is not None:
            self._tables.uploads.pop(row.job.upload_id, None)
        message = self._tables.messages.get(row.job.id)
        if message is not None and message.state != "pending":
            del self._tables.messages[row.job.id]

    def _is_taken(self, upload_id: str) -> bool:
        return any(row.job.upload_id == upload_id for row in self._tables.rows.values())

    def _release_upload(self, row: _Row) -> None:
        if row.job.upload_id is not None:
            upload = self._tables.uploads[row.job.upload_id]
            self._tables.uploads[upload.id] = replace(upload, expires_at=self._clock())
            row.job = replace(row.job, upload_id=None)

    def _after_attempt(
        self, delivery: Delivery, state: DeliveryState, until: datetime | None
    ) -> None:
        message = self._tables.messages.get(delivery.job_id)
        if message is None or message.delivery.fence != delivery.fence:
            return
        attempts = message.delivery.num_attempts + 1
        message.delivery = replace(message.delivery, num_attempts=attempts)
        message.state = state
        message.due_at = until or message.due_at
        row = self._tables.rows.get(delivery.job_id)
        if row is not None:
            self._change(row)
        elif state != "pending":
            del self._tables.messages[delivery.job_id]

    def _add(self, usage: Usage) -> None:
        name = (usage.key, usage.month, usage.kind)
        before = self._tables.usage.get(name, replace(usage, audio_s=0.0, num_requests=0))
        self._tables.usage[name] = replace(
            before,
            audio_s=before.audio_s + usage.audio_s,
            num_requests=before.num_requests + usage.num_requests,
        )


def _cost(job: Job) -> float:
    return max(1.0, job.audio_s) / job.weight


def _left_s(job: Job) -> float:
    return max(0.0, job.audio_s - job.done_s)


_: type[JobStore] = MemoryStore
