"""Ends and removes jobs whose time has come, and files that belong to none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs.dispatching import unless
from serve_app.jobs.ports import JobFiles, JobStore

ORPHAN_AGE = timedelta(days=1)
"""Files of that age whose id no row has are what a crash left between the files and the row."""

_EXPIRE_S = 15.0
_REMOVE_S = 60.0
_ORPHANS_S = 3600.0
_AT_ONCE = 100


class Sweeper:
    """Sweeps every so often; several replicas may do so at once.

    Args:
        store: knows the jobs.
        files: of the jobs.
        logger: told what was removed.
        on_expired: told how many jobs expired.
        on_outage: called when the store or the files do not answer.
    """

    def __init__(
        self,
        store: JobStore,
        files: JobFiles,
        logger: logging.Logger,
        on_expired: Callable[[int], None] = lambda num: None,
        on_outage: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._files = files
        self._logger = logger
        self._on_expired = on_expired
        self._on_outage = on_outage
        self._stopping = asyncio.Event()
        self._owed_audio: set[str] = set()
        self._owed: set[str] = set()

    async def run(self) -> None:
        """Sweeps until `stop` is called."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._every(_EXPIRE_S, self.expire))
            tasks.create_task(self._every(_REMOVE_S, self.remove_due))
            tasks.create_task(self._every(_ORPHANS_S, self.remove_orphans))

    def stop(self) -> None:
        self._stopping.set()

    async def expire(self) -> None:
        """Ends queued jobs that were to start before now."""
        if num_expired := await self._store.expire():
            self._on_expired(num_expired)
            self._logger.info("jobs expired", extra={"num_jobs": num_expired})

    async def remove_due(self) -> None:
        """Removes recordings, then jobs and uploads, whose retention is over.

        Their rows change first. Files that cannot be removed then are tried again by this
        process, and are removed with the job, or as orphans, if it is gone.
        """
        while ids := await self._store.audio_due_for_removal(_AT_ONCE):
            self._owed_audio.update(ids)
            await self._remove_owed()
        while ids := await self._store.due_for_removal(_AT_ONCE):
            self._owed.update(ids)
            await self._remove_owed()
            self._logger.info("jobs and uploads removed", extra={"num_removed": len(ids)})
        await self._remove_owed()

    async def remove_orphans(self) -> None:
        """Removes files whose id neither a job nor an upload has."""
        found = [job_id async for job_id in self._files.ids(older_than=ORPHAN_AGE)]
        num_removed = 0
        for start in range(0, len(found), _AT_ONCE):
            ids = found[start : start + _AT_ONCE]
            known = await self._store.known(ids)
            for job_id in ids:
                if job_id not in known:
                    await self._files.delete_all(job_id)
                    num_removed += 1
        if num_removed:
            self._logger.info("files of no job removed", extra={"num_removed": num_removed})

    async def _remove_owed(self) -> None:
        for job_id in sorted(self._owed_audio):
            await self._remove_recording(job_id)
            self._owed_audio.discard(job_id)
        for job_id in sorted(self._owed):
            await self._files.delete_all(job_id)
            self._owed.discard(job_id)

    async def _remove_recording(self, job_id: str) -> None:
        """Removes a job's recording and what was recognized of it on the way to its end."""
        for name in await self._files.names(job_id):
            if name == f"{job_id}/audio" or name.startswith(f"{job_id}/utterances-"):
                await self._files.delete(name)

    async def _every(self, period_s: float, sweep: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            try:
                await sweep()
            except Exception as error:
                self._on_outage()
                if not isinstance(error, StoreUnavailable):
                    self._logger.error("sweeping failed; it is tried again", exc_info=error)
            await unless(self._stopping, asyncio.sleep(period_s))
