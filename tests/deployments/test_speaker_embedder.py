"""The speaker replica, on an engine of the test's and without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import Chunk, Pcm, RequestContext, StageReadiness
from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    KnownSpeaker,
    SpeakerOptions,
    SpeakerWindows,
    join_windows,
    speaker_windows,
)
from serve_app.deployments import speaker_embedder as module
from serve_app.deployments.speaker_embedder import SpeakerEmbedderReplica
from serve_app.scheduling.micro_batcher import EngineStuck
from serve_app.settings import Settings
from serve_app.speakers.diarization import DiarizationTask
from tests.deployments.conftest import Recorded
from tests.fakes.voices import LOUD, FakeSpeakerEmbedder, diarization_of

READINESS = StageReadiness("speakers", "cpu", "pack", "abc")
TIMEOUT_S = 20.0
QUIET, NOISY = np.full(40_000, 10, np.int16), np.full(24_000, 2 * LOUD, np.int16)


class GatedEmbedder(FakeSpeakerEmbedder):
    """Blocks in the first batch until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.lengths: list[list[int]] = []

    def embed(self, batch: Sequence[Pcm]) -> list[Embeddings]:
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        self.lengths.append([len(pcm) for pcm in batch])
        return super().embed(batch)


Open = Callable[..., SpeakerEmbedderReplica]


@pytest.fixture
async def replica_of(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> AsyncIterator[Open]:
    opened: list[SpeakerEmbedderReplica] = []

    def open_replica(engine: FakeSpeakerEmbedder, **section: object) -> SpeakerEmbedderReplica:
        loaded = SimpleNamespace(engine=engine, readiness=READINESS)
        monkeypatch.setattr(module, "load_speaker_embedder", lambda settings: loaded)
        settings = Settings.model_validate({"speaker_embedder": section})
        opened.append(SpeakerEmbedderReplica(settings))
        return opened[-1]

    yield open_replica
    for replica in opened:
        await replica._embedder.close()
        replica._clustering.shutdown()
        await replica._metrics._sampler.stop()


def chunk(pcm: Pcm, start_ms: int = 0, deadline: float | None = None) -> Chunk:
    return Chunk(RequestContext("request", deadline=deadline), 0, start_ms, pcm)


async def test_windows_come_back_in_the_recordings_time(replica_of: Open) -> None:
    quiet, noisy = await replica_of(FakeSpeakerEmbedder()).embed(
        [chunk(QUIET, 500), chunk(NOISY, 60_000)]
    )
    assert quiet.start_ms.tolist() == [500, 1250, 1500]
    assert quiet.end_ms.tolist() == [2000, 2750, 3000]
    assert quiet.embeddings.tolist() == [[1, 0]] * 3
    assert (noisy.start_ms.tolist(), noisy.embeddings.tolist()) == ([60_000], [[0, 1]])


async def test_waiting_chunks_share_batches_of_at_most_the_windows_of_the_setting(
    replica_of: Open,
) -> None:
    engine = GatedEmbedder()
    assert len(speaker_windows(len(QUIET))) == 3
    replica = replica_of(engine, max_batch_windows=6, max_batch_s=None)
    first = asyncio.ensure_future(replica.embed([chunk(NOISY)]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    others = asyncio.ensure_future(replica.embed([chunk(QUIET)] * 5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    engine.gate.set()
    await asyncio.gather(first, others)
    assert [len(lengths) for lengths in engine.lengths] == [1, 2, 2, 1]


async def test_known_speakers_are_embedded_for_the_diarization(
    replica_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Embeddings | None] = []
    threads: list[str] = []

    def diarize(
        windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
    ) -> Diarization:
        seen.append(known)
        threads.append(threading.current_thread().name)
        return diarization_of(windows)

    monkeypatch.setattr(module, "diarize", diarize)
    replica = replica_of(FakeSpeakerEmbedder())
    windows = join_windows(await replica.embed([chunk(QUIET), chunk(NOISY, 5000)]))
    known = (KnownSpeaker("Anna", NOISY), KnownSpeaker("Ben", QUIET))
    for options in (SpeakerOptions(known=known), SpeakerOptions()):
        task = DiarizationTask(RequestContext("request"), windows, options)
        assert await replica.diarize(task) == diarization_of(windows)
    assert seen[0] is not None
    np.testing.assert_allclose(seen[0], [[0, 1], [1, 0]])
    assert seen[1] is None
    assert all(name.startswith("diarization") for name in threads)


async def test_embeddings_go_on_while_speakers_are_told_apart(
    replica_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def diarize(
        windows: SpeakerWindows, options: SpeakerOptions, known: Embeddings | None
    ) -> Diarization:
        entered.set()
        assert gate.wait(TIMEOUT_S)
        return Diarization()

    monkeypatch.setattr(module, "diarize", diarize)
    replica = replica_of(FakeSpeakerEmbedder())
    (windows,) = await replica.embed([chunk(QUIET)])
    task = DiarizationTask(RequestContext("request"), windows, SpeakerOptions())
    call = asyncio.ensure_future(replica.diarize(task))
    assert await asyncio.to_thread(entered.wait, TIMEOUT_S)
    assert len(await replica.embed([chunk(NOISY)])) == 1
    assert not call.done()
    gate.set()
    assert await call == Diarization()


async def test_replica_describes_the_model_that_it_loaded(replica_of: Open) -> None:
    assert await replica_of(FakeSpeakerEmbedder()).describe() == READINESS


async def test_request_past_its_deadline_is_refused(replica_of: Open) -> None:
    with pytest.raises(DeadlineExceeded):
        await replica_of(FakeSpeakerEmbedder()).embed([chunk(QUIET, deadline=1.0)])


async def test_health_check_fails_once_the_engine_is_stuck(replica_of: Open) -> None:
    engine = GatedEmbedder()
    replica = replica_of(engine)
    await replica.check_health()
    call = asyncio.ensure_future(replica.embed([chunk(QUIET)]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    await replica.check_health()
    replica._stuck_after_s = 0.0
    with pytest.raises(EngineStuck):
        await replica.check_health()
    engine.gate.set()
    await asyncio.gather(call, return_exceptions=True)


async def test_canceled_call_that_waits_never_reaches_the_engine(replica_of: Open) -> None:
    engine = GatedEmbedder()
    replica = replica_of(engine)
    first = asyncio.ensure_future(replica.embed([chunk(QUIET)]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    second = asyncio.ensure_future(replica.embed([chunk(NOISY)]))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    engine.gate.set()
    await first
    assert engine.lengths == [[len(QUIET)]]


async def test_batch_is_counted(replica_of: Open, recorded: Recorded) -> None:
    await replica_of(FakeSpeakerEmbedder()).embed([chunk(QUIET)])
    assert recorded["paraserve_batches_total"] == [(1.0, {"stage": "speakers"})]
