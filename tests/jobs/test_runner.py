"""The runner over a store and files in memory: what becomes of a job, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from serve_app.core.errors import (
    CorruptAudio,
    InvalidParameter,
    ModelUnavailable,
    NotReady,
    ParaserveError,
    RecognitionFailed,
    StorageFull,
)
from serve_app.core.job_errors import StoreUnavailable
from serve_app.jobs import attempt, runner
from serve_app.jobs.attempt import Workplace
from serve_app.jobs.checkpoints import utterances_from_json
from serve_app.jobs.records import Job, JobLimits, JobStatus, NewJob
from serve_app.jobs.runner import AttemptEnd, Runner
from serve_app.scheduling.backoff import Backoff
from serve_app.transcript.transcript_json import transcript_from_json
from tests.fakes.job_files import MemoryFiles
from tests.fakes.job_store import MemoryStore
from tests.fakes.job_transcriber import ScriptedTranscriber

TIMEOUT_S = 30.0
LEASE_S = 0.3
KEY = "team-a"
LOGGER = logging.getLogger("tests.jobs")
QUICK = Backoff(0.001, 0.001)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attempt, "_WRITES", QUICK)
    monkeypatch.setattr(attempt, "_SETBACKS", QUICK)
    monkeypatch.setattr(runner, "_SETBACKS", QUICK)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@dataclass
class Office:
    """A store, its files, and how runners work on them."""

    store: MemoryStore
    files: MemoryFiles
    workplace: Workplace
    ends: list[AttemptEnd]

    async def add(self, name: str, text: str = "abcdef", **fields: Any) -> Job:
        job_id = f"job_{name}"
        await self.files.put_bytes(f"{job_id}/audio", text.encode("latin-1"))
        request = json.dumps({"fields": {}, "audio": [f"{job_id}/audio"]})
        await self.files.put_bytes(f"{job_id}/request.json", request.encode())
        new = NewJob(job_id, KEY, 1.0, len(text), float(len(text)), **fields)
        return (await self.store.create(new))[0]

    async def job(self, name: str) -> Job:
        return await self.store.get(KEY, f"job_{name}")

    async def text_of(self, name: str) -> str:
        result = (await self.job(name)).result
        assert result is not None
        transcript = transcript_from_json(await self.files.get_bytes(result))
        return "".join(word.text for word in transcript.words())

    async def becomes(self, name: str, status: JobStatus) -> Job:
        async def has_become() -> bool:
            return (await self.job(name)).status == status

        await until(has_become)
        return await self.job(name)

    @asynccontextmanager
    async def running(
        self, transcriber: ScriptedTranscriber, **changes: Any
    ) -> AsyncIterator[Runner]:
        max_running = changes.pop("max_running", 2)
        workplace = replace(self.workplace, transcriber=transcriber, **changes)
        working = Runner("runner-1", workplace, max_running, self.ends.append, idle_s=0.01)
        task = asyncio.create_task(working.run())
        try:
            yield working
        finally:
            working.stop()
            async with asyncio.timeout(TIMEOUT_S):
                await task

    @asynccontextmanager
    async def killed_later(self, transcriber: ScriptedTranscriber) -> AsyncIterator[None]:
        """A runner that is gone at the end, without having told anybody."""
        workplace = replace(self.workplace, transcriber=transcriber)
        working = Runner("runner-0", workplace, 2, self.ends.append, idle_s=0.01)
        task = asyncio.create_task(working.run())
        yield
        # Nothing that it still does reaches the store or the files.
        object.__setattr__(workplace, "store", MemoryStore())
        object.__setattr__(workplace, "files", MemoryFiles())
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            holds = condition()
            if asyncio.iscoroutine(holds):
                holds = await holds
            if holds:
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def office() -> Office:
    store, files = MemoryStore(JobLimits(max_attempts=3)), MemoryFiles()
    workplace = Workplace(
        store,
        files,
        ScriptedTranscriber(),
        LOGGER,
        lease_s=LEASE_S,
        checkpoint_audio_s=2.0,
        max_attempts=3,
    )
    return Office(store, files, workplace, [])


async def test_job_is_completed_with_its_text(office: Office, tmp_path: Path) -> None:
    await office.add("a", "hello")
    async with office.running(ScriptedTranscriber()):
        job = await office.becomes("a", "completed")
    assert await office.text_of("a") == "hello"
    assert job.audio_s == job.done_s == 5.0
    assert job.num_attempts == 1
    assert job.result == "job_a/result-1.json"
    # Neither checkpoints nor a copy of the recording are left.
    assert sorted(office.files.contents) == ["job_a/audio", "job_a/request.json", job.result]
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240


async def test_recording_in_parts_is_put_together(office: Office) -> None:
    await office.files.put_bytes("upl_x/part-0", b"ab")
    await office.files.put_bytes("upl_x/part-1", b"cd")
    await office.add("a")
    request = json.dumps({"fields": {}, "audio": ["upl_x/part-0", "upl_x/part-1"]})
    await office.files.put_bytes("job_a/request.json", request.encode())
    async with office.running(ScriptedTranscriber()):
        await office.becomes("a", "completed")
    assert await office.text_of("a") == "abcd"


async def test_no_more_than_max_running_at_once_and_all_are_done(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 1
    for name in "abcd":
        await office.add(name)
    async with office.running(transcriber, max_running=2) as working:
        await until(lambda: transcriber.num_begun == 2)
        assert working.num_running == 2
        assert (await office.store.backlog()).num_queued == 2
        transcriber.goes_on.set()
        for name in "abcd":
            await office.becomes(name, "completed")


async def test_lease_is_renewed_with_the_progress(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 4
    await office.add("a")
    async with office.running(transcriber):

        async def has_progress() -> bool:
            return (await office.job("a")).done_s == 4.0

        await until(has_progress)
        # Well beyond the first lease nobody else gets the job.
        await asyncio.sleep(2 * LEASE_S)
        assert await office.store.lease("thief", 1.0) is None
        transcriber.goes_on.set()
        assert (await office.becomes("a", "completed")).num_attempts == 1


@pytest.mark.parametrize("remove", [False, True], ids=["cancelled", "deleted"])
async def test_work_stops_when_the_job_is_ended_by_its_owner(office: Office, remove: bool) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 3
    await office.add("a")
    await office.add("b")
    async with office.running(transcriber, max_running=1):
        await until(transcriber.reached.is_set)
        if remove:
            await office.store.delete(KEY, "job_a")
            await office.files.delete_all("job_a")
        else:
            await office.store.cancel(KEY, "job_a")
        await until(lambda: transcriber.num_cancelled == 1)
        transcriber.goes_on.set()
        await office.becomes("b", "completed")
    assert office.ends[0] == AttemptEnd("lost", None)
    assert "job_a/result-1.json" not in office.files.contents


async def test_nothing_is_left_of_a_job_that_is_deleted_while_it_runs(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 2
    await office.add("a", "abcdefgh")
    async with office.running(transcriber, lease_s=60.0):
        await until(transcriber.reached.is_set)
        await office.files.delete_all("job_a")
        await office.store.delete(KEY, "job_a")
        # It goes on until it hears of that, and stores what it has.
        transcriber.goes_on.set()
        await until(lambda: office.ends)
    assert office.ends == [AttemptEnd("lost", None)]
    assert office.files.contents == {}


async def test_result_of_a_job_that_was_cancelled_at_its_end_is_not_kept(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 2
    await office.add("a")
    async with office.running(transcriber, lease_s=60.0):
        await until(transcriber.reached.is_set)
        await office.store.cancel(KEY, "job_a")
        transcriber.goes_on.set()
        await until(lambda: office.ends)
    assert (await office.job("a")).status == "cancelled"
    assert not [name for name in office.files.contents if "result" in name]


async def test_job_of_a_lost_runner_goes_on_from_its_checkpoint(office: Office) -> None:
    await office.add("a", "abcdefghij")
    first = ScriptedTranscriber()
    first.pause_at = 9
    async with office.killed_later(first):
        await until(first.reached.is_set)
        await until(lambda: any("utterances-1" in name for name in office.files.contents))
    second = ScriptedTranscriber()
    async with office.running(second):
        job = await office.becomes("a", "completed")
    assert await office.text_of("a") == "abcdefghij"
    assert job.num_attempts == 2
    assert job.result == "job_a/result-2.json"
    # At most what had come since the last checkpoint, of 2 s, is recognized again.
    assert set(first.recognized["job_a"]) | set(second.recognized["job_a"]) == set(range(10))
    assert len(second.recognized["job_a"]) <= 10 - 2


async def test_job_that_kills_its_runners_fails_in_the_end(office: Office) -> None:
    await office.add("a")
    for number in range(3):
        transcriber = ScriptedTranscriber()
        transcriber.pause_at = 1
        async with office.killed_later(transcriber):
            await until(transcriber.reached.is_set)
        assert (await office.job("a")).num_attempts == number + 1
    async with office.running(ScriptedTranscriber()):
        job = await office.becomes("a", "failed")
    assert job.error is not None
    assert job.error.code == "job_attempts_exhausted"


async def test_late_runner_changes_nothing(office: Office) -> None:
    await office.add("a", "abc")
    slow = ScriptedTranscriber()
    slow.pause_at = 1
    async with office.running(slow, lease_s=1e9):
        await until(slow.reached.is_set)
        # Its lease runs out for the store, as on a machine that was frozen.
        office.store._tables.rows["job_a"].lease_until = (await office.job("a")).created_at
        async with office.running(ScriptedTranscriber()):
            await office.becomes("a", "completed")
        slow.goes_on.set()
        await until(lambda: len(office.ends) == 2)
    assert [end.outcome for end in office.ends] == ["completed", "lost"]
    assert (await office.job("a")).result == "job_a/result-2.json"


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (CorruptAudio("no frame"), "file"),
        (InvalidParameter("language", "is not known"), "language"),
        (RecognitionFailed("every chunk"), None),
    ],
)
async def test_callers_fault_fails_the_job_with_its_code(
    office: Office, error: ParaserveError, param: str | None
) -> None:
    await office.add("a")
    async with office.running(ScriptedTranscriber(error)):
        job = await office.becomes("a", "failed")
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.param) == (error.code, str(error), param)
    assert job.num_attempts == 1


async def test_empty_recording_fails(office: Office) -> None:
    await office.add("a", "")
    async with office.running(ScriptedTranscriber()):
        job = await office.becomes("a", "failed")
    assert job.error is not None
    assert job.error.code == "empty_file"


@pytest.mark.parametrize(
    "error", [NotReady("asr"), ModelUnavailable("m", "?"), StorageFull(1.0), StoreUnavailable()]
)
async def test_what_the_service_cannot_do_now_is_tried_again_and_no_attempt_counts(
    office: Office, error: ParaserveError
) -> None:
    await office.add("a")
    transcriber = ScriptedTranscriber(*[error] * 5)
    async with office.running(transcriber):
        job = await office.becomes("a", "completed")
    assert job.num_attempts == 1
    assert [end.outcome for end in office.ends] == ["handed_back"] * 5 + ["completed"]
    assert office.ends[0].code == error.code
    # What was recognized before is kept: a second a step, of which the last one failed.
    assert transcriber.recognized["job_a"] == list(range(6))


async def test_job_that_cannot_run_now_does_not_hold_up_others(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_SETBACKS", Backoff(3600.0, 3600.0))
    await office.add("a")
    await office.add("b")
    async with office.running(ScriptedTranscriber(NotReady("asr")), max_running=1):
        await office.becomes("b", "completed")
    assert (await office.job("a")).status == "queued"


async def test_pauses_of_a_job_grow(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Pauses(Backoff):
        def pause_s(self, num_failures: int) -> float:
            asked.append(num_failures)
            return 0.001

    monkeypatch.setattr(attempt, "_SETBACKS", Pauses())
    await office.add("a")
    async with office.running(ScriptedTranscriber(*[NotReady("asr")] * 3)):
        await office.becomes("a", "completed")
    assert asked == [1, 2, 3]


async def test_unknown_error_counts_as_an_attempt_and_fails_the_job_in_the_end(
    office: Office,
) -> None:
    await office.add("a")
    async with office.running(ScriptedTranscriber(*[ZeroDivisionError("bug")] * 3)):
        job = await office.becomes("a", "failed")
    assert job.error is not None
    assert job.error.code == "internal_error"
    assert "bug" not in job.error.message
    assert job.num_attempts == 3
    assert [end.outcome for end in office.ends] == ["abandoned", "abandoned", "failed"]


async def test_unknown_error_once_loses_nothing(office: Office) -> None:
    await office.add("a")
    async with office.running(ScriptedTranscriber(ZeroDivisionError("bug"))):
        assert (await office.becomes("a", "completed")).num_attempts == 2
    assert await office.text_of("a") == "abcdef"


async def test_full_local_disk_is_not_the_jobs_fault(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.add("a")
    calls: list[str] = []
    made = tempfile.mkdtemp

    def mkdtemp(**options: Any) -> Any:
        calls.append("made")
        if len(calls) < 3:
            raise OSError(28, "No space left on device")
        return made(**options)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    async with office.running(ScriptedTranscriber()):
        assert (await office.becomes("a", "completed")).num_attempts == 1
    assert [end.code for end in office.ends] == ["storage_full", "storage_full", None]


async def test_outage_of_the_store_in_the_middle_ends_no_work(office: Office) -> None:
    outages: list[None] = []
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 3
    await office.add("a")
    async with office.running(transcriber, on_outage=lambda: outages.append(None)):
        await until(transcriber.reached.is_set)
        office.store.fault = StoreUnavailable()
        # Renewals fail for longer than the lease.
        await until(lambda: len(outages) > 5)
        transcriber.goes_on.set()
        await until(lambda: "job_a/result-1.json" in office.files.contents)
        office.store.fault = None
        job = await office.becomes("a", "completed")
    assert job.num_attempts == 1
    assert transcriber.recognized["job_a"] == list(range(6))


async def test_result_that_cannot_be_stored_is_tried_until_it_can(office: Office) -> None:
    outages: list[None] = []
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 5
    await office.add("a")
    async with office.running(transcriber, on_outage=lambda: outages.append(None)):
        await until(transcriber.reached.is_set)
        office.files.fault = StorageFull(30.0)
        transcriber.goes_on.set()
        await until(lambda: len(outages) > 10)
        assert (await office.job("a")).status == "running"
        office.files.fault = None
        await office.becomes("a", "completed")
    assert await office.text_of("a") == "abcdef"


async def test_files_that_are_out_at_the_start_are_waited_for(office: Office) -> None:
    await office.add("a")
    office.files.fault = StoreUnavailable()
    async with office.running(ScriptedTranscriber()):
        await until(lambda: len(office.ends) > 2)
        office.files.fault = None
        assert (await office.becomes("a", "completed")).num_attempts == 1


@pytest.mark.parametrize("fault", [StoreUnavailable(), TimeoutError(), ZeroDivisionError("bug")])
async def test_store_that_is_out_at_the_start_is_waited_for(
    office: Office, fault: Exception
) -> None:
    await office.add("a")
    office.store.fault = fault
    outages: list[None] = []
    async with office.running(ScriptedTranscriber(), on_outage=lambda: outages.append(None)):
        await until(lambda: outages)
        office.store.fault = None
        await office.becomes("a", "completed")


async def test_runner_that_stops_keeps_what_is_recognized_and_hands_the_job_back(
    office: Office,
) -> None:
    first = ScriptedTranscriber()
    first.pause_at = 5
    await office.add("a")
    async with office.running(first, checkpoint_audio_s=1e9):
        await until(first.reached.is_set)
        assert not [name for name in office.files.contents if "utterances" in name]
    job = await office.job("a")
    assert (job.status, job.num_attempts) == ("queued", 0)
    assert office.ends == [AttemptEnd("handed_back", "shutting_down")]
    second = ScriptedTranscriber()
    async with office.running(second):
        await office.becomes("a", "completed")
    assert second.recognized["job_a"] == [5]
    assert await office.text_of("a") == "abcdef"


async def test_runner_that_stops_ends_a_job_that_is_about_to_end(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    await office.add("a")
    outages: list[None] = []
    async with office.running(transcriber, on_outage=lambda: outages.append(None)) as working:
        office.files.fault = None
        put = office.files.put_bytes
        gate = asyncio.Event()

        async def slow_put(name: str, content: bytes) -> None:
            if "result" in name:
                gate.set()
                await asyncio.sleep(0.05)
            await put(name, content)

        office.files.put_bytes = slow_put  # type: ignore[method-assign]
        await until(gate.is_set)
        working.stop()
    assert (await office.job("a")).status == "completed"


async def test_runner_that_stops_during_an_outage_ends_in_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "_LET_GO_S", 0.1)
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 2
    await office.add("a")
    async with office.running(transcriber):
        await until(transcriber.reached.is_set)
        office.store.fault = office.files.fault = StoreUnavailable()
    assert [end.outcome for end in office.ends] == ["abandoned"]


async def test_checkpoints_come_every_so_often_and_failures_of_them_stop_nothing(
    office: Office,
) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 4
    await office.add("a", "abcdefgh")
    async with office.running(transcriber):
        await until(lambda: "job_a/utterances-1-00000.json" in office.files.contents)
        await until(transcriber.reached.is_set)
        office.files.fault = StorageFull(1.0)
        transcriber.goes_on.set()
        await until(lambda: len(transcriber.recognized["job_a"]) == 8)
        office.files.fault = None
        await office.becomes("a", "completed")


async def test_each_checkpoint_has_enough_audio_however_slow_the_files_are(office: Office) -> None:
    transcriber = ScriptedTranscriber()
    transcriber.pause_at = 3
    await office.add("a", "abcd")
    put = office.files.put_bytes
    stored: list[int] = []

    async def slow_put(name: str, content: bytes) -> None:
        if "utterances" in name:
            await transcriber.reached.wait()
            stored.append(len(utterances_from_json(content, "fake")))
        await put(name, content)

    office.files.put_bytes = slow_put  # type: ignore[method-assign]
    async with office.running(transcriber):
        await until(lambda: stored)
        for _ in range(100):
            await asyncio.sleep(0.001)
        transcriber.goes_on.set()
        await office.becomes("a", "completed")
    assert min(stored) >= 2


async def test_line_in_the_log_has_no_text(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOGGER.name)
    await office.add("a", "secret", request_id="req-1")
    async with office.running(ScriptedTranscriber()):
        await office.becomes("a", "completed")
        await until(lambda: office.ends)
    lines = caplog.records
    (line,) = [line for line in lines if line.message == "job ended"]
    shown = vars(line)
    assert shown["paraserve_job_id"] == "job_a"
    assert shown["paraserve_request_id"] == "req-1"
    assert shown["key"] == KEY
    assert shown["status"] == "completed"
    assert shown["audio_s"] == 6.0
    assert shown["num_attempts"] == 1
    assert shown["recognized_audio_s"] == 6.0
    assert shown["reused_audio_s"] == 0.0
    assert not any("secret" in str(value) for line in lines for value in vars(line).values())
