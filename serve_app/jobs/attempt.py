"""One runner's attempt at one job, from its lease to its end.

While it works, the lease is renewed every third of its length. It ends in one of five ways, see
`Outcome`; in three of them the job goes on later, from the utterances that are stored.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeVar

from serve_app.core.errors import (
    ParaserveError,
    RecognitionFailed,
    RequestError,
    ServiceError,
    StorageFull,
)
from serve_app.core.job_errors import StoreUnavailable
from serve_app.core.records import FileBytes, Utterance
from serve_app.jobs.checkpoints import Checkpoints
from serve_app.jobs.dispatching import cancelled
from serve_app.jobs.local_copy import fetch_recording
from serve_app.jobs.ports import JobFiles, JobStore
from serve_app.jobs.records import Job, JobError, Lease
from serve_app.scheduling.backoff import Backoff
from serve_app.transcript.transcript import Transcript
from serve_app.transcript.transcript_json import transcript_to_json

Outcome: TypeAlias = Literal["completed", "failed", "handed_back", "lost", "abandoned"]
"""How an attempt ended: "completed" or "failed" is the job's final state. "handed_back" queues
the job again, because the service cannot run it now or this runner stops. "lost" is a job that
was cancelled, deleted, or taken over meanwhile. "abandoned" after an error that is nobody's known
fault: the lease runs out, so that the attempt counts."""

ResultT = TypeVar("ResultT")

_SETBACKS = Backoff(10.0, 600.0)
_WRITES = Backoff(0.5, 15.0)
_STORING_S = 30.0
_LET_GO_S = 5.0
"""Time that a runner which stops spends on what a job has so far."""
_INTERNAL = JobError(
    "internal_error",
    "the job failed because of an internal error; the service's log has details under its id",
)


@dataclass(frozen=True, slots=True)
class JobTask:
    """What is to be transcribed.

    Attributes:
        job: as it was leased.
        request: content of the file request.json.
        audio: the recording, shape [bytes].
        known: utterances of earlier attempts.
    """

    job: Job
    request: bytes
    audio: FileBytes
    known: tuple[Utterance, ...]


class Transcriber(Protocol):
    """Transcribes recordings by the stages of the service."""

    @property
    def made_by(self) -> str:
        """What the text depends on besides the recording and the request."""
        ...

    def audio_names(self, request: bytes) -> Sequence[str]:
        """Returns the names of the files that are the recording.

        Raises:
            ValueError: it is no request of a job.
        """
        ...

    async def transcribe(
        self, task: JobTask, on_utterance: Callable[[Utterance], None]
    ) -> Transcript:
        """Returns the transcript; calls `on_utterance` with each utterance as it comes.

        Raises:
            RequestError: the caller is to blame.
            RecognitionFailed: nothing could be recognized.
            ServiceError: the service cannot do it now.
        """
        ...

    def job_error(self, error: ParaserveError) -> JobError:
        """Returns an error as the job shows it."""
        ...


@dataclass(frozen=True, slots=True)
class Workplace:
    """What attempts work with.

    Attributes:
        store: of the jobs.
        files: of the jobs.
        transcriber: of the recordings.
        logger: gets one line per attempt.
        spool_dir: where recordings are copied to; None for the system's temporary directory.
        lease_s: length of a lease, in s.
        checkpoint_audio_s: recognized audio after which progress is stored, in s.
        max_attempts: attempts of a job.
        on_outage: called for each write that the store or the files do not take.
        on_recognized: told of recognized audio, in s, as it comes.
    """

    store: JobStore
    files: JobFiles
    transcriber: Transcriber
    logger: logging.Logger
    spool_dir: Path | None = None
    lease_s: float = 30.0
    checkpoint_audio_s: float = 300.0
    max_attempts: int = 3
    on_outage: Callable[[], None] = lambda: None
    on_recognized: Callable[[float], None] = lambda audio_s: None


class Progress:
    """How far a recording is recognized, over all its channels."""

    def __init__(self) -> None:
        self._end_ms: dict[int | None, int] = {}

    def add(self, utterance: Utterance) -> None:
        reached_ms = self._end_ms.get(utterance.channel, 0)
        self._end_ms[utterance.channel] = max(reached_ms, utterance.end_ms)

    @property
    def done_s(self) -> float:
        return sum(self._end_ms.values()) / 1000


class Attempt:
    """An attempt.

    Args:
        workplace: what it works with.
        lease: of the job.
        num_setbacks: times in a row that this runner has handed the job back before.
    """

    def __init__(self, workplace: Workplace, lease: Lease, num_setbacks: int = 0) -> None:
        self._at = workplace
        self._lease = lease
        self.num_setbacks = num_setbacks
        """Times in a row that this runner has handed the job back."""
        self.code: str | None = None
        """Of the error that ended the attempt; None without one."""
        self._checkpoints = Checkpoints(
            workplace.files,
            lease.job.id,
            lease.fence,
            workplace.transcriber.made_by,
            workplace.checkpoint_audio_s,
        )
        self._progress = Progress()
        self._recognized_ms = self._reused_ms = 0
        self._grew = asyncio.Event()
        self._is_ending = False
        self._audio_s = lease.job.audio_s

    async def run(self, stopping: asyncio.Event) -> Outcome:
        """Works on the job until it ends, its lease is lost, or `stopping` is set."""
        began = time.monotonic()
        storing = asyncio.create_task(self._store_progress())
        working = asyncio.create_task(self._work(storing))
        renewing = asyncio.create_task(self._keep_lease())
        stop = asyncio.create_task(stopping.wait())
        outcome: Outcome = "lost"
        try:
            await asyncio.wait((working, renewing, stop), return_when=asyncio.FIRST_COMPLETED)
            if stop.done() and not renewing.done() and self._is_ending:
                await asyncio.wait((working,), timeout=_LET_GO_S)
            if working.done():
                outcome = working.result()
            elif renewing.done():
                renewing.result()  # raises what nobody expected
            else:
                await cancelled(working, storing, renewing)
                outcome = await self._let_go()
        finally:
            await cancelled(working, storing, renewing, stop)
            self._log(outcome, time.monotonic() - began)
        if outcome == "lost":
            await self._remove_what_is_deleted()
        return outcome

    async def _work(self, storing: asyncio.Task[None]) -> Outcome:
        try:
            try:
                transcript = await self._transcribe()
            finally:
                await self._end(storing)
            return await self._complete(transcript)
        except (RequestError, RecognitionFailed) as error:
            return await self._fail(self._at.transcriber.job_error(error))
        except ParaserveError as error:
            return await self._hand_back(error)
        except Exception as error:
            return await self._give_up(error)

    async def _transcribe(self) -> Transcript:
        job = self._lease.job
        transcriber = self._at.transcriber
        request = await self._at.files.get_bytes(f"{job.id}/request.json")
        names = transcriber.audio_names(request)
        known = await self._checkpoints.read()
        audio = await fetch_recording(self._at.files, names, self._at.spool_dir)
        return await transcriber.transcribe(JobTask(job, request, audio, known), self._take)

    async def _end(self, storing: asyncio.Task[None]) -> None:
        """Lets the storing of progress finish what it has begun, but begin no more."""
        self._is_ending = True
        self._grew.set()
        await asyncio.wait((storing,), timeout=_STORING_S)
        await cancelled(storing)

    def _take(self, utterance: Utterance) -> None:
        self._progress.add(utterance)
        audio_ms = utterance.end_ms - utterance.start_ms
        if self._checkpoints.add(utterance):
            self._recognized_ms += audio_ms
            self._at.on_recognized(audio_ms / 1000)
        else:
            self._reused_ms += audio_ms
        if self._checkpoints.is_due:
            self._grew.set()

    async def _store_progress(self) -> None:
        """Stores utterances whenever enough have come, and again later where that fails."""
        while True:
            await self._grew.wait()
            self._grew.clear()
            if self._is_ending:
                return
            if not self._checkpoints.is_due:
                continue  # it grew while it was written
            try:
                await self._checkpoints.write()
            except Exception as error:
                self._at.on_outage()
                self._at.logger.warning(
                    "progress could not be stored; the job goes on",
                    extra={**self._ids, "error": str(error)},
                    exc_info=None if isinstance(error, ServiceError) else error,
                )

    async def _keep_lease(self) -> None:
        """Renews the lease; returns once it is lost."""
        period_s = self._at.lease_s / 3
        pauses = Backoff(min(0.5, period_s), period_s)
        num_failures = 0
        while True:
            await asyncio.sleep(period_s if num_failures == 0 else pauses.pause_s(num_failures))
            try:
                async with asyncio.timeout(self._at.lease_s):
                    is_held = await self._renew()
            except (StoreUnavailable, TimeoutError):
                # Nobody else can take the job meanwhile, so the work goes on.
                num_failures += 1
                self._at.on_outage()
                continue
            num_failures = 0
            if not is_held:
                return

    async def _renew(self) -> bool:
        lease_s = self._at.lease_s
        return await self._at.store.renew(self._lease, lease_s, self._progress.done_s)

    async def _complete(self, transcript: Transcript) -> Outcome:
        job = self._lease.job
        self._audio_s = transcript.duration_ms / 1000 * transcript.num_channels
        name = f"{job.id}/result-{self._lease.fence}.json"
        content = await asyncio.to_thread(transcript_to_json, transcript)
        await self._insist(lambda: self._at.files.put_bytes(name, content))
        store = self._at.store
        if not await self._insist(lambda: store.complete(self._lease, name, self._audio_s)):
            with suppress(StoreUnavailable):
                await self._at.files.delete(name)
            return "lost"
        await self._clear()
        return "completed"

    async def _fail(self, error: JobError) -> Outcome:
        self.code = error.code
        if not await self._insist(lambda: self._at.store.fail(self._lease, error)):
            return "lost"
        await self._clear()
        return "failed"

    async def _give_up(self, error: Exception) -> Outcome:
        """Ends an attempt that met an error which nobody raises on purpose."""
        if not await self._insist(self._renew):
            return "lost"  # such as a job that is deleted, with its files
        self.code = _INTERNAL.code
        self._at.logger.error("job failed unexpectedly", extra=self._ids, exc_info=error)
        if self._lease.job.num_attempts < self._at.max_attempts:
            return "abandoned"
        return await self._fail(_INTERNAL)

    async def _hand_back(self, error: ParaserveError) -> Outcome:
        """Queues the job again for later, with what has been recognized."""
        self.code = error.code
        self._at.logger.warning(
            "job cannot run now", extra={**self._ids, "code": error.code, "error": str(error)}
        )
        with suppress(StoreUnavailable, StorageFull):
            await self._checkpoints.write()
        self.num_setbacks += 1
        pause_s = _SETBACKS.pause_s(self.num_setbacks)
        await self._insist(lambda: self._at.store.hand_back(self._lease, pause_s))
        return "handed_back"

    async def _let_go(self) -> Outcome:
        """Hands the job back because this runner stops; if that fails, the lease runs out."""
        self.code = "shutting_down"
        try:
            async with asyncio.timeout(_LET_GO_S):
                with suppress(StoreUnavailable, StorageFull):
                    await self._checkpoints.write()
                await self._at.store.hand_back(self._lease)
        except (StoreUnavailable, TimeoutError):
            return "abandoned"
        return "handed_back"

    async def _remove_what_is_deleted(self) -> None:
        """Removes what was stored of a job after its owner had deleted it with its files."""
        job_id = self._lease.job.id
        try:
            if job_id not in await self._at.store.known([job_id]):
                await self._at.files.delete_all(job_id)
        except StoreUnavailable:
            self._at.on_outage()  # the sweeper removes it in a day

    async def _clear(self) -> None:
        """Removes the checkpoints of a job that has ended; retention removes what is left."""
        with suppress(StoreUnavailable):
            await self._checkpoints.delete()

    async def _insist(self, write: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Returns the result of a write, repeated until it is taken or the lease is lost."""
        num_failures = 0
        while True:
            try:
                return await write()
            except (StoreUnavailable, StorageFull) as error:
                num_failures += 1
                self._at.on_outage()
                if num_failures == 1:
                    self._at.logger.error(
                        "the end of a job cannot be stored; it is tried again",
                        extra={**self._ids, "error": str(error)},
                    )
                await asyncio.sleep(_WRITES.pause_s(num_failures))

    @property
    def _ids(self) -> dict[str, object]:
        job = self._lease.job
        return {
            "paraserve_job_id": job.id,
            "key": job.key,
            "paraserve_request_id": job.request_id,
        }

    def _log(self, outcome: Outcome, took_s: float) -> None:
        job = self._lease.job
        self._at.logger.info(
            "job ended" if outcome in ("completed", "failed") else "attempt at a job ended",
            extra={
                **self._ids,
                "status": outcome,
                "code": self.code,
                "audio_s": round(self._audio_s, 3),
                "recognized_audio_s": self._recognized_ms / 1000,
                "reused_audio_s": self._reused_ms / 1000,
                "took_s": round(took_s, 3),
                "num_attempts": job.num_attempts,
            },
        )
