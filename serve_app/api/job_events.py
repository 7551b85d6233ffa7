"""Tells callers of each change of their jobs, as server-sent events.

However many watch, a process asks the store once a second, for the versions of all watched jobs
together; and not at all while nobody watches.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import dataclass, field

from fastapi import Request, Response

from serve_app.api.auth import caller_of
from serve_app.api.body import RequestBody
from serve_app.api.endpoints import EndpointLog
from serve_app.api.errors import error_body
from serve_app.api.event_stream import EventFeed, EventStream
from serve_app.api.front import is_head
from serve_app.api.job_fields import job_id_of
from serve_app.core.errors import Overloaded, ParaserveError
from serve_app.core.job_errors import JobNotFound, StoreUnavailable
from serve_app.jobs.job_json import job_json
from serve_app.jobs.ports import JobStore
from serve_app.jobs.records import Job

# A client opens the stream again; a replica that is to stop waits for its streams.
_MAX_WATCH_S = 300.0
_KEY_SHARE = 0.75
_RETRY_S = 10.0
_OK = 200


@dataclass(eq=False, slots=True)
class _Watcher:
    """One caller who watches a job.

    Attributes:
        key: name of the caller's key.
        job_id: of the job.
        version: that the caller was told of.
        changed: set if the store has another one.
    """

    key: str
    job_id: str
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class JobWatch:
    """Follows jobs. Belongs to one event loop.

    Args:
        store: of the jobs.
        logger: told when the store fails unexpectedly.
        max_watchers: in this process; those of one key are at most three quarters of them.
        period_s: how often the store is asked.
        clock: monotonic time in s.
    """

    def __init__(
        self,
        store: JobStore,
        logger: logging.Logger,
        *,
        max_watchers: int,
        period_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._logger = logger
        self._clock = clock
        self._max_watchers = max_watchers
        self._period_s = period_s
        self._watchers: set[_Watcher] = set()
        self._asking: asyncio.Task[None] | None = None

    async def follow(self, key: str, job_id: str) -> AsyncGenerator[Job]:
        """Yields a job now and after each change; the last one is in its final state.

        It also ends when the job is removed, and after five minutes.

        Raises:
            JobNotFound: the key has no such job.
            StoreUnavailable: the store did not answer at first.
            Overloaded: the key, or all keys together, watch too many jobs.
        """
        with self._watching(key, job_id) as watcher:
            until = self._clock() + _MAX_WATCH_S
            job = await self._store.get(key, job_id)
            while True:
                if job.version != watcher.version:
                    watcher.version = job.version
                    yield job
                if job.is_final or not await self._changed(watcher, until):
                    return
                try:
                    job = await self._store.get(key, job_id)
                except JobNotFound:
                    return
                except StoreUnavailable:
                    # The next answer about versions wakes the watcher again.
                    continue

    async def close(self) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})

    @contextmanager
    def _watching(self, key: str, job_id: str) -> Generator[_Watcher]:
        of_key = Counter(watcher.key for watcher in self._watchers)[key]
        most = self._max_watchers
        if len(self._watchers) >= most or of_key >= max(1, int(most * _KEY_SHARE)):
            raise Overloaded(_RETRY_S)
        watcher = _Watcher(key, job_id)
        self._watchers.add(watcher)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def _changed(self, watcher: _Watcher, until: float) -> bool:
        """Waits for a change; returns False if there was none in time."""
        try:
            async with asyncio.timeout(max(until - self._clock(), 0.0)):
                await watcher.changed.wait()
        except TimeoutError:
            return False
        watcher.changed.clear()
        return True

    async def _ask(self) -> None:
        """Asks for versions as long as somebody watches."""
        while self._watchers:
            await asyncio.sleep(self._period_s)
            watched = list(self._watchers)
            try:
                versions = await self._store.versions(
                    list(dict.fromkeys(watcher.job_id for watcher in watched))
                )
            except StoreUnavailable:
                continue
            except Exception:
                self._logger.exception("the versions of watched jobs cannot be read")
                continue
            for watcher in watched:
                if versions.get(watcher.job_id) != watcher.version:
                    watcher.changed.set()


class JobEventsHandler:
    """Answers `GET /v1/jobs/ID/events`.

    Args:
        store: of the jobs.
        watch: follows them.
        logger: gets a line at the end of each stream.
    """

    def __init__(self, store: JobStore, watch: JobWatch, logger: logging.Logger) -> None:
        self._store = store
        self._watch = watch
        self._logger = logger

    async def events(self, request: Request, log: EndpointLog) -> Response:
        log.subject = job_id_of(request)
        if is_head(request):
            await self._store.get(caller_of(request).name, log.subject)
            return Response(media_type="text/event-stream")
        body = RequestBody(request)
        feed = EventFeed(self._events(caller_of(request).name, log.subject))
        with ExitStack() as held:
            held.callback(body.close)
            first = await feed.first(body, _RETRY_S)
            log.at_end, log.status = True, _OK
            return EventStream(
                feed,
                first,
                body,
                held.pop_all(),
                last_event=lambda error: self._last_event(error, log),
                departed=log.mark_departed,
                at_end=lambda: log.write(self._logger),
            )

    async def _events(self, key: str, job_id: str) -> AsyncGenerator[str]:
        async with aclosing(self._watch.follow(key, job_id)) as jobs:
            async for job in jobs:
                content = json.dumps(job_json(job, await self._position(job)), ensure_ascii=False)
                yield f"event: job\ndata: {content}\n\n"

    async def _position(self, job: Job) -> int | None:
        try:
            return await self._store.position(job)
        except StoreUnavailable:
            return None

    def _last_event(self, error: Exception, log: EndpointLog) -> str:
        reported = error if isinstance(error, ParaserveError) else ParaserveError("internal error")
        if reported is not error:
            self._logger.error(
                "stream failed unexpectedly",
                extra={"paraserve_request_id": log.request_id},
                exc_info=error,
            )
        log.code = reported.code
        return f"event: error\ndata: {json.dumps(error_body(reported), ensure_ascii=False)}\n\n"
