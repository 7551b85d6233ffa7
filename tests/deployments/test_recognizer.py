"""The recognizer replica, on an engine of the test's and without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import numpy as np
import pytest

from serve_app.core.errors import DeadlineExceeded, ModelNotFound
from serve_app.core.ports import Recognizer
from serve_app.core.records import (
    ALL_HEEDED,
    Chunk,
    ChunkFailure,
    Hotword,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
    StageReadiness,
)
from serve_app.deployments.recognizer import RecognizerReplica
from serve_app.inference.loading import Loaded
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.packs.pack import PackContents, open_pack
from serve_app.scheduling.micro_batcher import EngineStuck
from serve_app.settings import Settings
from tests.deployments.conftest import Recorded
from tests.fakes.engines import FakeRecognizer

READINESS = StageReadiness("asr", "cpu", "pack", "abc")
TIMEOUT_S = 20.0


class GatedRecognizer(FakeRecognizer):
    """Blocks in every batch until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.num_items = 0

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        self.num_items += len(batch)
        return super().transcribe(batch, recognition_options)


Open = Callable[..., RecognizerReplica]


@pytest.fixture(scope="module")
def pack() -> PackContents:
    return open_pack(BUILTIN_DIRECTORY / "paraformer-demo")


@pytest.fixture
async def replica_of(recorded: Recorded, pack: PackContents) -> AsyncIterator[Open]:
    opened: list[RecognizerReplica] = []

    def open_replica(engine: FakeRecognizer) -> RecognizerReplica:
        class Replica(RecognizerReplica):
            @staticmethod
            def load(settings: Settings) -> Loaded[Recognizer]:
                return Loaded(engine, READINESS, pack)

        opened.append(Replica(Settings()))
        return opened[-1]

    yield open_replica
    for replica in opened:
        await replica._recognizer.close()
        await replica._metrics._sampler.stop()
        await replica._cache_metrics._sampler.stop()


def chunk(
    duration_s: float = 0.2,
    *,
    background: bool = False,
    deadline: float | None = None,
    model: str | None = None,
) -> Chunk:
    context = RequestContext("request", deadline=deadline, background=background)
    pcm = np.ones(int(duration_s * 16_000), np.int16)
    return Chunk(context, 0, 0, pcm, RecognitionOptions(model=model))


def num_tokens(result: object) -> int:
    assert isinstance(result, Recognition)
    return len(result.tokens)


async def test_results_come_in_the_order_of_the_chunks(replica_of: Open) -> None:
    replica = replica_of(FakeRecognizer())
    results = await replica.transcribe([chunk(0.3), chunk(0.1), chunk(0.2)])
    assert [num_tokens(result) for result in results] == [3, 1, 2]


async def test_chunk_alone_is_announced_before_its_result(replica_of: Open) -> None:
    replica = replica_of(FakeRecognizer())
    begun, result = [event async for event in replica.transcribe_alone(chunk(0.3))]
    assert begun == "begun"
    assert num_tokens(result) == 3


async def test_batch_is_counted(replica_of: Open, recorded: Recorded) -> None:
    await replica_of(FakeRecognizer()).transcribe([chunk()])
    assert recorded["paraserve_batches_total"] == [(1.0, {"stage": "asr"})]


async def test_unknown_model_is_refused(replica_of: Open) -> None:
    replica = replica_of(FakeRecognizer())
    asked = chunk(model="unknown")
    with pytest.raises(ModelNotFound):
        await replica.transcribe([asked])
    with pytest.raises(ModelNotFound):
        await anext(replica.transcribe_alone(asked))
    assert (await replica.record_autoscaling_stats())["audio_s_per_s"] == 0


async def test_request_past_its_deadline_is_refused(replica_of: Open) -> None:
    with pytest.raises(DeadlineExceeded):
        await replica_of(FakeRecognizer()).transcribe([chunk(deadline=1.0)])


@pytest.mark.parametrize("alone", [True, False])
async def test_recognized_audio_counts_as_throughput(replica_of: Open, alone: bool) -> None:
    replica = replica_of(FakeRecognizer())
    if alone:
        async with aclosing(replica.transcribe_alone(chunk())) as events:
            async for _ in events:
                pass
    else:
        await replica.transcribe([chunk()])
    assert (await replica.record_autoscaling_stats())["audio_s_per_s"] > 0


async def test_background_audio_does_not_count_as_throughput(replica_of: Open) -> None:
    replica = replica_of(FakeRecognizer())
    await replica.transcribe([chunk(background=True)])
    assert (await replica.record_autoscaling_stats())["audio_s_per_s"] == 0


@pytest.mark.parametrize("background", [True, False])
async def test_running_audio_is_reported_by_its_class(replica_of: Open, background: bool) -> None:
    engine = GatedRecognizer()
    replica = replica_of(engine)
    call = asyncio.ensure_future(replica.transcribe([chunk(0.2, background=background)]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    load = await replica.record_autoscaling_stats()
    assert load["running_audio_s"] == pytest.approx(0.0 if background else 0.2)
    assert load["background_audio_s"] == pytest.approx(0.2 if background else 0.0)
    engine.gate.set()
    await call
    load = await replica.record_autoscaling_stats()
    assert load["running_audio_s"] == load["queued_audio_s"] == load["background_audio_s"] == 0


async def test_canceled_chunk_that_waits_never_reaches_the_engine(replica_of: Open) -> None:
    engine = GatedRecognizer()
    replica = replica_of(engine)
    first = asyncio.ensure_future(replica.transcribe([chunk()]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    second = asyncio.ensure_future(replica.transcribe([chunk()]))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    engine.gate.set()
    await first
    assert engine.num_items == 1


async def test_health_check_fails_once_the_engine_is_stuck(replica_of: Open) -> None:
    engine = GatedRecognizer()
    replica = replica_of(engine)
    await replica.check_health()
    call = asyncio.ensure_future(replica.transcribe([chunk()]))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    await replica.check_health()
    replica._stuck_after_s = 0.0
    with pytest.raises(EngineStuck):
        await replica.check_health()
    engine.gate.set()
    await asyncio.gather(call, return_exceptions=True)


async def test_replica_describes_the_model_that_it_loaded(replica_of: Open) -> None:
    assert await replica_of(FakeRecognizer()).describe() == READINESS


async def test_hotwords_are_checked_without_the_engine(replica_of: Open) -> None:
    replica = replica_of(FakeRecognizer())
    assert await replica.check_hotwords(RecognitionOptions()) == ALL_HEEDED
    check = await replica.check_hotwords(RecognitionOptions(hotwords=(Hotword("𠀀𠀁"),)))
    assert check.no_use is not None or check.unwritable == ("𠀀𠀁",)
