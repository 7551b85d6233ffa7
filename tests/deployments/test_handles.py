"""Groups whose replica dies: the chunk that is to blame is found, and it alone is lost."""

from __future__ import annotations

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import ReplicaUnavailableError

from serve_app.core.errors import NotReady
from serve_app.core.records import Chunk, ChunkFailure, Recognition, RequestContext
from serve_app.deployments import retries
from serve_app.deployments.handles import RemoteRecognizer
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck
from serve_app.settings import Settings
from tests.fakes.handles import FakeHandle, Script, task_error

DIED = ActorDiedError()
HEARD = Recognition(())
CHUNKS = [
    Chunk(RequestContext("request"), index, 0, np.zeros(1600, np.int16)) for index in range(3)
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", Backoff(0.0001, 0.0001))


def recognizer(calls: Script, streams: Script = ()) -> tuple[RemoteRecognizer, FakeHandle]:
    handle = FakeHandle(calls, streams)
    return RemoteRecognizer(handle.handle, Settings.model_validate({"max_attempts": 2})), handle


async def test_answered_group_takes_one_call() -> None:
    remote, handle = recognizer([[HEARD] * 3])
    assert await remote.recognize(CHUNKS) == [HEARD] * 3
    assert len(handle.asked) == 1


async def test_group_whose_replica_dies_is_retried_chunk_by_chunk() -> None:
    remote, handle = recognizer([DIED], [["begun", HEARD]] * 3)
    assert await remote.recognize(CHUNKS) == [HEARD] * 3
    assert handle.asked == [CHUNKS, *CHUNKS]
    assert handle.num_cancelled == 3


async def test_chunk_under_which_two_replicas_die_is_given_up_and_its_neighbors_are_not() -> None:
    alone = [["begun", HEARD], ["begun", DIED], ["begun", DIED], ["begun", HEARD]]
    remote, _ = recognizer([DIED], alone)
    first, second, third = await remote.recognize(CHUNKS)
    assert (first, third) == (HEARD, HEARD)
    assert isinstance(second, ChunkFailure)
    assert second.code == "poison"


async def test_death_before_the_chunk_was_begun_is_not_held_against_it() -> None:
    remote, _ = recognizer([], [[DIED]] * 5 + [["begun", DIED], ["begun", HEARD]])
    assert await remote.recognize_alone(CHUNKS[0]) == HEARD


async def test_replica_that_cannot_be_reached_is_not_held_against_the_chunk() -> None:
    remote, _ = recognizer([], [["begun", ReplicaUnavailableError("r")]] * 4 + [["begun", HEARD]])
    assert await remote.recognize_alone(CHUNKS[0]) == HEARD


async def test_attempts_for_a_chunk_are_limited() -> None:
    remote, handle = recognizer([], [[DIED]] * 50)
    result = await remote.recognize_alone(CHUNKS[0])
    assert isinstance(result, ChunkFailure)
    assert result.code == "unavailable"
    assert len(handle.asked) == 10


async def test_failure_of_a_chunk_alone_is_an_answer() -> None:
    failure = ChunkFailure("engine_error", "MemoryError")
    remote, _ = recognizer([DIED], [["begun", failure], ["begun", HEARD], ["begun", HEARD]])
    assert await remote.recognize(CHUNKS) == [failure, HEARD, HEARD]


async def test_chunks_outlast_the_replacement_of_a_replica_that_is_stuck() -> None:
    waited = task_error(EngineStuck("a batch", begun=False))
    refused: list[object] = [waited, *[task_error(BatcherClosed())] * 40]
    remote, handle = recognizer([*refused, [HEARD] * 3])
    assert await remote.recognize(CHUNKS) == [HEARD] * 3
    assert len(handle.asked) == 42


async def test_chunk_alone_outlasts_the_replacement_as_well() -> None:
    refused = [[task_error(BatcherClosed())]] * 40
    remote, _ = recognizer([], [["begun", DIED], *refused, ["begun", HEARD]])
    assert await remote.recognize_alone(CHUNKS[0]) == HEARD


async def test_wait_for_a_replacement_is_bounded() -> None:
    now_s = 0.0

    def clock() -> float:
        nonlocal now_s
        now_s += 10.0
        return now_s

    closed = task_error(BatcherClosed())
    handle = FakeHandle([closed] * 1000, [[closed]] * 1000)
    remote = RemoteRecognizer(handle.handle, Settings(), clock)
    with pytest.raises(NotReady):
        await remote.recognize(CHUNKS)
    with pytest.raises(NotReady):
        await remote.recognize_alone(CHUNKS[0])
