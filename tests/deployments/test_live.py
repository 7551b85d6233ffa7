"""The sessions of a live replica: limits, drains, and models behind handles."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.serve._private import replica
from ray.serve.exceptions import ReplicaUnavailableError

from serve_app.core.errors import ModelNotFound, Overloaded, RecognitionFailed, ShuttingDown
from serve_app.core.in_flight import InFlightCounter, begin_draining, num_in_flight
from serve_app.core.records import Chunk, Recognition
from serve_app.deployments import replica_stop
from serve_app.deployments.live import LiveSessionPool, RemoteModels
from serve_app.deployments.live_metrics import LiveMetrics
from serve_app.live.records import LiveEvent, SessionOptions, SessionStatistics
from serve_app.settings import Settings
from serve_app.transcript.punctuation import PunctuationState
from serve_app.transcript.sentences import PunctuationResult
from tests.fakes.handles import FakeHandle, task_error
from tests.live.models import (
    CONTEXT,
    PCM_16K,
    ScriptedRecognizer,
    finals_of,
    scripted_models,
    settle,
    speech,
    words_of,
)

MANUAL = SessionOptions(detection=None)


def settings(**live: Any) -> Settings:
    return Settings.model_validate({"live": live})


class Pool:
    """A pool whose replica can be stopped."""

    def __init__(self, counter: InFlightCounter | None = None, **live: Any) -> None:
        self.now = 1000.0
        self.stopping_since: float | None = None
        self.recognizer = ScriptedRecognizer()
        self.metrics = LiveMetrics(None)
        self.tested = LiveSessionPool(
            scripted_models(self.recognizer),
            settings(**live),
            self.metrics,
            counter,
            lambda: self.stopping_since,
            lambda: self.now,
        )

    async def open(self, key: str = "anonymous") -> Any:
        return await self.tested.open(replace(CONTEXT, key=key), PCM_16K, MANUAL)


async def read_all(session: Any) -> tuple[list[LiveEvent], Exception | None]:
    events: list[LiveEvent] = []
    try:
        async for event in session.events():
            events.append(event)  # noqa: PERF401 - a comprehension would lose them
    except ShuttingDown as error:
        return events, error
    return events, None


async def test_sessions_over_the_limit_are_refused_until_one_is_closed() -> None:
    pool = Pool(max_sessions=2)
    first, second = await pool.open(), await pool.open("other")
    with pytest.raises(Overloaded):
        await pool.open()
    await first.close()
    await first.close()
    third = await pool.open()
    assert pool.tested.sessions == {second, third}
    for session in (second, third):
        await session.close()


async def test_one_key_leaves_room_for_others() -> None:
    pool = Pool(max_sessions=3, key_max_sessions=1)
    sessions = [await pool.open("a")]
    with pytest.raises(Overloaded):
        await pool.open("a")
    sessions.append(await pool.open("b"))
    for session in sessions:
        await session.close()
    assert pool.tested.sessions == frozenset()


async def test_a_stopped_replica_refuses_sessions_and_ends_its_own_before_its_end() -> None:
    pool = Pool(deployment={"graceful_shutdown_timeout_s": 100})
    session = await pool.open()
    session.push(speech(10))
    pool.stopping_since = pool.now
    with pytest.raises(ShuttingDown):
        await pool.open()
    reading = asyncio.create_task(read_all(session))
    pool.now += 84
    pool.tested.drain()
    await settle()
    assert not reading.done()
    pool.now += 1
    pool.tested.drain()
    pool.tested.drain()
    events, error = await reading
    assert isinstance(error, ShuttingDown)
    assert [final.text for final in finals_of(events)] == [words_of(10)]
    assert session.statistics().finished_ms == 1000
    await session.close()


async def test_a_session_that_cannot_finish_in_time_is_ended() -> None:
    pool = Pool(deployment={"graceful_shutdown_timeout_s": 100})
    pool.recognizer.gate.clear()
    session = await pool.open()
    session.push(speech(10))
    session.commit()
    pool.stopping_since = pool.now
    reading = asyncio.create_task(read_all(session))
    pool.now += 90
    pool.tested.drain()
    await settle()
    assert not reading.done()
    pool.now += 5
    pool.tested.drain()
    events, error = await reading
    assert isinstance(error, ShuttingDown)
    assert finals_of(events) == []
    assert session.statistics().finished_ms == 0
    await session.close()


async def test_a_service_that_stops_ends_its_sessions_at_once_and_waits_for_them(
    tmp_path: Path,
) -> None:
    counter = InFlightCounter(tmp_path)
    pool = Pool(counter, max_sessions=1)
    session = await pool.open()
    with pytest.raises(Overloaded):
        await pool.open()
    assert num_in_flight(tmp_path) == 1
    session.push(speech(5))
    begin_draining(tmp_path)
    with pytest.raises(ShuttingDown):
        await pool.open()
    pool.tested.drain()
    events, error = await read_all(session)
    assert isinstance(error, ShuttingDown)
    assert [final.text for final in finals_of(events)] == [words_of(5)]
    assert num_in_flight(tmp_path) == 1
    await session.close()
    assert num_in_flight(tmp_path) == 0
    counter.close()


def chunk() -> Chunk:
    import numpy as np

    return Chunk(CONTEXT, 0, 0, np.zeros(1600, np.int16))


async def test_errors_of_the_models_come_without_remote_tracebacks() -> None:
    recognizer = FakeHandle([task_error(ModelNotFound("other", "one")), task_error(KeyError())])
    models = RemoteModels(settings(), recognizer.handle, None)
    assert models.label is None
    with pytest.raises(ModelNotFound):
        await models.recognize([chunk()])
    with pytest.raises(RecognitionFailed, match="KeyError"):
        await models.recognize([chunk()])


async def test_marks_are_asked_for_a_whole_text() -> None:
    result = PunctuationResult((("你", ""), ("好", "。")), PunctuationState())
    punctuator = FakeHandle([result])
    label = RemoteModels(settings(), FakeHandle([]).handle, punctuator.handle).label
    assert label is not None
    assert await label(CONTEXT, ["你", "好"]) == ["", "。"]
    (task,) = punctuator.asked
    assert task.final
    # Urgent, as the chunks are.
    assert task.end_ms == 0


async def test_a_call_whose_replica_was_away_is_repeated() -> None:
    recognizer = FakeHandle([ReplicaUnavailableError("away"), [Recognition(())]])
    models = RemoteModels(settings(), recognizer.handle, None)
    assert list(await models.recognize([chunk()])) == [Recognition(())]


async def test_a_replica_learns_that_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []

    class Stand:
        async def _perform_graceful_shutdown(self) -> None:
            stopped.append("stopped")

    monkeypatch.setattr(replica, "Replica", Stand)
    monkeypatch.setattr(replica_stop._Stop, "began_s", None)
    replica_stop.watch_replica_stop()
    replica_stop.watch_replica_stop()
    assert replica_stop.stopping_since_s() is None
    await Stand()._perform_graceful_shutdown()
    assert stopped == ["stopped"]
    assert replica_stop.stopping_since_s() is not None


def test_ray_still_stops_replicas_by_the_method_that_is_watched() -> None:
    assert hasattr(replica.Replica, "_perform_graceful_shutdown")


async def test_counts_of_ended_and_open_sessions_add_up() -> None:
    counted: list[tuple[str, float]] = []
    tested = LiveMetrics(None)
    for name in ("_segments", "_partials", "_thinned", "_retractions", "_audio"):
        setattr(tested, name, _Counter(name, counted))
    going = SessionStatistics(received_ms=2000, num_segments=1, num_partials=3)
    tested.watch(lambda: [going], lambda: None)
    tested._sample()
    tested.ended(replace(going, num_segments=2, num_failed_segments=1, num_thinned=4))
    tested.watch(list, lambda: None)
    tested._sample()
    totals: dict[str, float] = {}
    for name, increase in counted:
        totals[name] = totals.get(name, 0) + increase
    assert totals == {"_segments": 2, "_partials": 3, "_thinned": 4, "_audio": 2.0}


class _Counter:
    def __init__(self, name: str, counted: list[tuple[str, float]]) -> None:
        self._name, self._counted = name, counted

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self._counted.append((self._name, value))
