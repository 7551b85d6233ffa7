"""The punctuator replica, on an engine of the test's and without Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import SimpleNamespace

import pytest

from serve_app.core.errors import DeadlineExceeded
from serve_app.core.records import RequestContext, StageReadiness
from serve_app.deployments import punctuator as module
from serve_app.deployments.punctuator import PunctuatorReplica
from serve_app.scheduling.micro_batcher import EngineStuck
from serve_app.settings import Settings
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationTask
from tests.deployments.conftest import Recorded
from tests.fakes.engines import FakePunctuator

READINESS = StageReadiness("punctuation", "cpu", "pack", "abc")
TIMEOUT_S = 20.0


class GatedPunctuator(FakePunctuator):
    """Blocks in the first batch until the gate opens."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        self.batches.extend(list(words) for words in batch)
        return super().label(batch)


Open = Callable[..., PunctuatorReplica]


@pytest.fixture
async def replica_of(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> AsyncIterator[Open]:
    opened: list[PunctuatorReplica] = []

    def open_replica(engine: FakePunctuator, **section: object) -> PunctuatorReplica:
        loaded = SimpleNamespace(engine=engine, readiness=READINESS)
        monkeypatch.setattr(module, "load_punctuator", lambda settings: loaded)
        opened.append(PunctuatorReplica(Settings.model_validate({"punctuator": section})))
        return opened[-1]

    yield open_replica
    for replica in opened:
        await replica._punctuator.close()
        await replica._metrics._sampler.stop()


def task(*words: str, deadline: float | None = None) -> PunctuationTask:
    context = RequestContext("request", deadline=deadline)
    return PunctuationTask(context, PunctuationState(), words, final=True, end_ms=1000)


async def test_words_come_back_with_their_marks(replica_of: Open) -> None:
    result = await replica_of(FakePunctuator()).punctuate(task("一", "句"))
    assert result.pairs == (("一", ""), ("句", "。"))


async def test_replica_describes_the_model_that_it_loaded(replica_of: Open) -> None:
    assert await replica_of(FakePunctuator()).describe() == READINESS


async def test_request_past_its_deadline_is_refused(replica_of: Open) -> None:
    with pytest.raises(DeadlineExceeded):
        await replica_of(FakePunctuator()).punctuate(task("一", deadline=1.0))


async def test_health_check_fails_once_the_engine_is_stuck(replica_of: Open) -> None:
    engine = GatedPunctuator()
    replica = replica_of(engine)
    await replica.check_health()
    call = asyncio.ensure_future(replica.punctuate(task("一")))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    await replica.check_health()
    replica._stuck_after_s = 0.0
    with pytest.raises(EngineStuck):
        await replica.check_health()
    engine.gate.set()
    await asyncio.gather(call, return_exceptions=True)


async def test_canceled_call_that_waits_never_reaches_the_engine(replica_of: Open) -> None:
    engine = GatedPunctuator()
    replica = replica_of(engine)
    first = asyncio.ensure_future(replica.punctuate(task("一")))
    assert await asyncio.to_thread(engine.entered.wait, TIMEOUT_S)
    second = asyncio.ensure_future(replica.punctuate(task("二")))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    engine.gate.set()
    await first
    assert engine.batches == [["一"]]


async def test_batch_is_counted(replica_of: Open, recorded: Recorded) -> None:
    await replica_of(FakePunctuator()).punctuate(task("一"))
    assert recorded["paraserve_batches_total"] == [(1.0, {"stage": "punctuation"})]
