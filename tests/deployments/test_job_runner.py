"""The job runner replica over scripted handles, with a store and files in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError

from serve_app.api.job_requests import JobRequest, write_job_request
from serve_app.core.errors import CorruptAudio
from serve_app.core.job_errors import StoreUnavailable
from serve_app.core.records import (
    FileBytes,
    RecordingEnd,
    SegmentationJob,
    Token,
    Utterance,
)
from serve_app.core.speakers import Diarization, SpeakerWindows
from serve_app.deployments import job_runner as module
from serve_app.deployments import retries
from serve_app.deployments.job_runner import JobRunnerReplica
from serve_app.jobs import attempt
from serve_app.jobs.checkpoints import utterances_to_json
from serve_app.jobs.records import Job, JobStatus, NewJob
from serve_app.scheduling.backoff import Backoff
from serve_app.settings import Settings
from serve_app.transcript.transcript import Transcript
from serve_app.transcript.transcript_json import transcript_from_json
from tests.deployments.conftest import Recorded
from tests.fakes.handles import FakeHandle, Script, task_error
from tests.fakes.job_files import MemoryFiles
from tests.fakes.job_store import MemoryStore
from tests.jobs.test_runner import until

KEY = "team-a"
AUDIO = bytes(range(200))


def said(index: int, text: str, voices: SpeakerWindows | None = None) -> Utterance:
    start_ms = index * 2000
    token = Token(text, start_ms, start_ms + 500, 0.9)
    return Utterance(index, start_ms, start_ms + 2000, "done", (token,), voices=voices)


FIRST, SECOND = said(0, "一"), said(1, "二")
END = RecordingEnd(4000, (FIRST.summary, SECOND.summary))
VOICE = SpeakerWindows(np.array([0]), np.array([1500]), np.ones((1, 192), np.float32))


class Site:
    """A replica, and what it works with."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.files = MemoryFiles()
        self.segmenter = FakeHandle((), ())
        self.embedder = FakeHandle(())
        self.replica: JobRunnerReplica | None = None

    def open(self, streams: Script, embedder: Script = (), **jobs: Any) -> JobRunnerReplica:
        stages = ["vad", "asr", "speakers"] if embedder else ["vad", "asr"]
        settings = Settings.model_validate(
            {
                "stages": stages,
                "max_attempts": 2,
                "jobs": {"enabled": True, "lease_s": 1, **jobs},
            }
        )
        self.segmenter = FakeHandle((), streams)
        self.embedder = FakeHandle(embedder)
        handles = (self.segmenter.handle, FakeHandle(()).handle, None, self.embedder.handle)
        self.replica = JobRunnerReplica(settings, *handles)
        return self.replica

    async def add(self, name: str, **fields: str) -> None:
        job_id = f"job_{name}"
        sent = {field: [value] for field, value in fields.items()}
        request = JobRequest({"model": ["whisper-1"], **sent}, [f"{job_id}/audio"], "m")
        await self.files.put_bytes(f"{job_id}/request.json", write_job_request(request))
        await self.files.put_bytes(f"{job_id}/audio", AUDIO)
        await self.store.create(NewJob(job_id, KEY, 3.0, len(AUDIO), 4.0, request_id="req"))

    async def becomes(self, name: str, status: JobStatus) -> Job:
        async def has_become() -> bool:
            return (await self.store.get(KEY, f"job_{name}")).status == status

        await until(has_become)
        return await self.store.get(KEY, f"job_{name}")

    async def transcript(self, name: str) -> Transcript:
        job = await self.store.get(KEY, f"job_{name}")
        assert job.result is not None
        return transcript_from_json(self.files.contents[job.result])


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> AsyncIterator[Site]:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))
    monkeypatch.setattr(attempt, "_SETBACKS", Backoff(0.001, 0.001))
    site = Site()
    monkeypatch.setattr(module, "open_store", lambda settings: site.store)
    monkeypatch.setattr(module, "open_files", lambda settings: site.files)
    yield site
    if site.replica is not None:
        async with asyncio.timeout(30):
            await site.replica.stop()


async def test_job_runs_through_the_stages_in_the_background(
    site: Site, recorded: Recorded
) -> None:
    await site.add("a")
    site.open([[FIRST, SECOND, END]])
    job = await site.becomes("a", "completed")
    assert job.audio_s == 4.0
    assert [one.text for one in (await site.transcript("a")).sentences] == ["一", "二"]
    (asked,) = site.segmenter.asked
    assert isinstance(asked, SegmentationJob)
    context = asked.context
    assert (context.background, context.key, context.weight) == (True, KEY, 3.0)
    assert (context.request_id, context.deadline) == ("job_a", None)
    assert _bytes(asked.audio) == AUDIO
    await until(lambda: recorded["paraserve_job_attempts_total"])
    assert recorded["paraserve_job_attempts_total"] == [(1, {"outcome": "completed"})]
    assert recorded["paraserve_jobs_ended_total"] == [(1, {"status": "completed", "code": "none"})]
    assert sum(value for value, _ in recorded["paraserve_job_audio_recognized_seconds_total"]) == 4


def _bytes(audio: FileBytes) -> bytes:
    return audio.tobytes()


async def test_text_rules_are_applied(site: Site) -> None:
    await site.add("a", replacements='{"二": "两"}')
    site.open([[FIRST, SECOND, END]])
    await site.becomes("a", "completed")
    assert [one.text for one in (await site.transcript("a")).sentences] == ["一", "两"]


async def test_known_utterances_reach_the_segmenter(site: Site) -> None:
    await site.add("a")
    replica = site.open([[FIRST, SECOND, END]])
    made_by = replica._runner._workplace.transcriber.made_by
    content = utterances_to_json([FIRST], made_by)
    await site.files.put_bytes("job_a/utterances-0-00000.json", content)
    await site.becomes("a", "completed")
    (asked,) = site.segmenter.asked
    assert asked.known == (FIRST,)


async def test_known_utterances_without_windows_are_left_out_where_labels_are_asked_for(
    site: Site,
) -> None:
    await site.add("a", speaker_labels="true", response_format="verbose_json")
    with_voice = said(1, "二", VOICE)
    replica = site.open([[said(0, "一", VOICE), with_voice, END]], [Diarization((), ("A",))])
    made_by = replica._runner._workplace.transcriber.made_by
    content = utterances_to_json([FIRST, with_voice], made_by)
    await site.files.put_bytes("job_a/utterances-0-00000.json", content)
    await site.becomes("a", "completed")
    (asked,) = site.segmenter.asked
    assert asked.known == (with_voice,)
    assert (await site.transcript("a")).diarization == Diarization((), ("A",))


async def test_bad_recording_fails_the_job(site: Site, recorded: Recorded) -> None:
    await site.add("a")
    site.open([[task_error(CorruptAudio("x"))]])
    job = await site.becomes("a", "failed")
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("corrupt_audio", "file")
    await until(lambda: recorded["paraserve_jobs_ended_total"])
    ended = recorded["paraserve_jobs_ended_total"]
    assert ended == [(1, {"status": "failed", "code": "corrupt_audio"})]


async def test_recording_of_which_nothing_is_recognized_fails(site: Site) -> None:
    await site.add("a")
    broken = Utterance(0, 0, 2000, "failed", error="poison: it kills")
    site.open([[broken, RecordingEnd(2000, (broken.summary,))]])
    job = await site.becomes("a", "failed")
    assert job.error is not None
    assert job.error.code == "recognition_failed"


async def test_lost_replicas_are_not_the_jobs_fault(site: Site, recorded: Recorded) -> None:
    await site.add("a", speaker_labels="true", response_format="diarized_json")
    spoken = [said(0, "一", VOICE), END]
    # The speakers are not found at first: a result without them is not what was asked for.
    site.open([spoken, spoken], [ActorDiedError(), ActorDiedError(), Diarization((), ("A",))])
    job = await site.becomes("a", "completed")
    assert job.num_attempts == 1
    outcomes = [tags["outcome"] for _, tags in recorded["paraserve_job_attempts_total"]]
    assert outcomes[:1] == ["handed_back"]


async def test_replica_that_is_stopped_hands_its_job_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.add("a")
    replica = site.open([])
    begun = asyncio.Event()

    async def never(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(replica._runner._workplace.transcriber, "transcribe", never)
    await until(begun.is_set)
    await replica.stop()
    site.replica = None
    job = await site.store.get(KEY, "job_a")
    assert (job.status, job.num_attempts) == ("queued", 0)


async def test_waiting_jobs_are_reported_for_autoscaling(
    site: Site, monkeypatch: pytest.MonkeyPatch, recorded: Recorded
) -> None:
    now = datetime.now(UTC)
    site.store._clock = lambda: now - timedelta(hours=1)
    monkeypatch.setattr(site.store, "lease", _nothing)
    for name in "abc":
        await site.add(name)
    replica = site.open([], autoscaling_weight=0.5)
    await until(lambda: replica._backlog.num_queued == 3)
    assert await replica.record_autoscaling_stats() == {"waiting_audio_s": 6.0}
    replica._metrics._sample()
    assert (3, {"state": "queued"}) in recorded["paraserve_jobs"]
    assert recorded["paraserve_jobs_queued_audio_seconds"][-1] == (12.0, {})
    assert recorded["paraserve_jobs_oldest_queued_seconds"][-1][0] >= 3600
    # What is known only of long ago keeps no recognizer.
    replica._backlog_at_s -= 3600
    assert await replica.record_autoscaling_stats() == {"waiting_audio_s": 0.0}


async def _nothing(*_: object) -> None:
    return None


async def test_replica_is_healthy_while_the_store_is_out_and_counts_it(
    site: Site, recorded: Recorded
) -> None:
    site.store.fault = StoreUnavailable()
    replica = site.open([[FIRST, SECOND, END]])
    await until(lambda: recorded["paraserve_job_store_errors_total"])
    await replica.check_health()
    site.store.fault = None
    await site.add("a")
    await site.becomes("a", "completed")


async def test_replica_whose_loop_has_ended_is_replaced(site: Site) -> None:
    replica = site.open([])
    replica._tasks[2].cancel()
    await until(replica._tasks[2].done)
    with pytest.raises(RuntimeError, match="loop"):
        await replica.check_health()


def test_runner_is_part_of_the_application_only_where_jobs_are_enabled() -> None:
    from serve_app.app import build

    for enabled in (False, True):
        settings = Settings.model_validate(
            {"auth": {"mode": "off"}, "jobs": {"enabled": enabled, "num_runners": 2}}
        )
        application = build(settings)
        bound: dict[str, Any] = dict(application._bound_deployment.init_kwargs)
        assert ("job_runner" in bound) == enabled
        if enabled:
            deployment = bound["job_runner"]._bound_deployment
            assert (deployment.name, deployment.num_replicas) == ("JobRunner", 2)
