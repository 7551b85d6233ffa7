"""What the API and the runners need of a store and of the files.

`serve_app.jobs.store.DatabaseStore` and `serve_app.jobs.files.FsspecFiles` are the real ones;
tests/fakes has both in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from serve_app.jobs.records import (
    Delivery,
    Job,
    JobBacklog,
    JobError,
    JobStatus,
    Lease,
    NewJob,
    Page,
    ResumableUpload,
    Usage,
)


class JobStore(Protocol):
    """The jobs, durable and shared by all processes.

    Every method may raise `StoreUnavailable`. What a method returns is durable before it does.
    """

    # --- by callers; a job belongs to its key, and no other sees it -------------------------

    async def create(self, job: NewJob) -> tuple[Job, bool]:
        """Adds a queued job.

        After `StoreUnavailable` the job may exist: leave its files to the sweeper, or call
        this again with the same job, which then changes nothing.

        Returns:
            The job, and whether it is new: with the same key and idempotency key, an earlier
            job is returned instead.

        Raises:
            IdempotencyConflict: that earlier job is of another request.
            UploadNotFound: the key has no upload `upload_id`, or another job has taken it.
            QueueFull: the key has too many queued jobs.
        """
        ...

    async def get(self, key: str, job_id: str) -> Job:
        """Raises:
        JobNotFound: the key has no such job.
        """
        ...

    async def position(self, job: Job) -> int | None:
        """Returns how many jobs start before a queued one, at most 1000; None if it is not.

        Those of other keys are estimated.
        """
        ...

    async def list(
        self,
        key: str,
        *,
        statuses: Sequence[JobStatus] = (),
        after: str | None = None,
        limit: int = 20,
    ) -> Page:
        """Returns the key's jobs, the newest first.

        Args:
            statuses: to include; none for all.
            after: id of the last job of the page before.
            limit: most jobs of a page, from 1 to 100.

        Raises:
            JobNotFound: there is no job `after`.
        """
        ...

    async def cancel(self, key: str, job_id: str) -> Job:
        """Ends a queued or running job; returns one in its final state as it is.

        Raises:
            JobNotFound: the key has no such job.
        """
        ...

    async def delete(self, key: str, job_id: str) -> None:
        """Removes the rows of the job and of its upload, in whatever state.

        The caller removes the files of both afterwards.

        Raises:
            JobNotFound: the key has no such job.
        """
        ...

    async def versions(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Returns the versions of those jobs that exist; one query for all of them."""
        ...

    async def open_audio_s(self, key: str) -> float:
        """Returns the audio of the key's queued and running jobs, in s."""
        ...

    # --- by runners -------------------------------------------------------------------------

    async def lease(self, runner: str, lease_s: float) -> Lease | None:
        """Takes the next job: a queued one, or one whose lease ran out; None if there is none.

        Between keys it is fair by audio and weight; within a key the order is by priority,
        then by time of creation. A job that has been taken `jobs.max_attempts` times without
        an end is failed instead, with the code `job_attempts_exhausted`.
        """
        ...

    async def renew(self, lease: Lease, lease_s: float, done_s: float) -> bool:
        """Prolongs a lease and stores the progress; False if it is lost, or the job ended."""
        ...

    async def hand_back(self, lease: Lease, after_s: float = 0.0) -> None:
        """Queues the job again at its old place; the attempt does not count.

        Args:
            after_s: time before which it is not taken again, so that the jobs behind one that
                cannot run now are not held up by it.
        """
        ...

    async def complete(self, lease: Lease, result: str, audio_s: float) -> bool:
        """Ends a job and adds its usage; returns False, and changes nothing, if the lease is lost.

        After `StoreUnavailable` it may be called again: it counts once. The same holds for
        `fail`.
        """
        ...

    async def fail(self, lease: Lease, error: JobError) -> bool:
        """Ends a job; returns False, and changes nothing, if the lease is lost."""
        ...

    async def backlog(self) -> JobBacklog: ...

    async def wait(self, timeout_s: float) -> None:
        """Returns when there may be a job to lease or a webhook to send, or after the time.

        Several tasks may wait at once, and all of them are woken. With PostgreSQL it is woken by
        NOTIFY; it does not ask the database in between.
        """
        ...

    # --- webhooks: an end of a job and its message are one transaction ----------------------

    async def take_delivery(self, runner: str, lease_s: float) -> Delivery | None:
        """Takes a message that is due; None if there is none."""
        ...

    async def delivered(self, delivery: Delivery) -> None: ...

    async def postpone(self, delivery: Delivery, until: datetime | None) -> None:
        """Counts a failed attempt. Without a next time the message stays undelivered."""
        ...

    async def redeliver(self, key: str, job_id: str) -> Job:
        """Makes the job's message due again, with the same id.

        Raises:
            JobNotFound: the key has no such job.
            NoWebhook: it has no webhook, or has not ended.
        """
        ...

    # --- resumable uploads ------------------------------------------------------------------

    async def create_upload(self, upload: ResumableUpload, max_open: int) -> None:
        """Adds an upload.

        Raises:
            TooManyUploads: the key has `max_open` uploads that no job has taken.
        """
        ...

    async def get_upload(self, key: str, upload_id: str) -> ResumableUpload:
        """Raises:
        UploadNotFound: the key has no such upload.
        """
        ...

    async def add_part(
        self, key: str, upload_id: str, offset_bytes: int, num_bytes: int
    ) -> ResumableUpload:
        """Adds a part whose file is stored.

        Raises:
            UploadNotFound: the key has no such upload.
            UploadConflict: the upload's offset is another one.
        """
        ...

    async def delete_upload(self, key: str, upload_id: str) -> None:
        """Removes the upload's row. The caller removes its files afterwards.

        Raises:
            UploadNotFound: the key has no such upload, or a job has taken it.
        """
        ...

    # --- retention --------------------------------------------------------------------------

    async def expire(self) -> int:
        """Ends queued jobs whose time to start has passed; returns how many."""
        ...

    async def due_for_removal(self, limit: int) -> Sequence[str]:
        """Returns ids of jobs and uploads whose retention is over, and forgets their rows.

        The caller removes all files of each. An upload that a job has taken goes with the job's
        recording or with the job.
        """
        ...

    async def audio_due_for_removal(self, limit: int) -> Sequence[str]:
        """Returns ids of ended jobs whose recordings are to go, and marks them as gone.

        The caller removes "ID/audio". An upload that such a job has taken is due for removal from
        then on.
        """
        ...

    async def known(self, ids: Iterable[str]) -> frozenset[str]:
        """Returns those that a row of a job or an upload has."""
        ...

    # --- usage ------------------------------------------------------------------------------

    async def add_usage(self, usage: Sequence[Usage]) -> None: ...

    async def usage(self, month: str, key: str | None = None) -> Sequence[Usage]:
        """Returns what was used in a month, of one key or of all, in order of the keys."""
        ...

    async def close(self) -> None: ...


class JobFiles(Protocol):
    """Recordings, requests, checkpoints and results, in a directory or an object store.

    A file's name begins with the id of its job or upload: "ID/audio", "ID/part-OFFSET-SIZE",
    "ID/request.json", "ID/utterances-FENCE-00000.json", "ID/result-FENCE.json". Writes are
    whole or nothing, and durable when they return.

    Every method may raise `StoreUnavailable` or `StorageFull`.
    """

    async def put_bytes(self, name: str, content: bytes) -> None: ...

    async def put_file(self, name: str, path: Path) -> None: ...

    async def get_bytes(self, name: str) -> bytes:
        """Raises:
        FileNotFoundError: there is no such file.
        """
        ...

    async def get_to(self, names: Sequence[str], path: Path) -> None:
        """Writes files one after the other into a local one.

        Raises:
            FileNotFoundError: one does not exist.
        """
        ...

    async def names(self, job_id: str) -> Sequence[str]:
        """Returns the names of a job's or an upload's files, in order."""
        ...

    async def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        ...

    async def delete_all(self, job_id: str) -> None:
        """Removes the files of a job or an upload."""
        ...

    def ids(self, older_than: timedelta) -> AsyncIterator[str]:
        """Yields the ids under which there are files, the newest of which is that old."""
        ...


Clock = Callable[[], datetime]
"""Returns the present time in UTC."""
