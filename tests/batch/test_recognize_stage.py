from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.batch.progress import Computed
from serve_app.batch.recognize_stage import (
    LoopThread,
    PoisonGuard,
    ProgressActor,
    TimedRecognizer,
)
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
)
from serve_app.transcript.fanout import POISON

EMPTY = Recognition(())


def chunk(index: int, recording: str = "1") -> Chunk:
    return Chunk(RequestContext(recording), index, 0, np.zeros(16, np.int16))


class Killed(BaseException):
    """Stands for the end of the process."""


class Model:
    """Dies of one chunk, like the process around it."""

    def __init__(self, poison: int | None = None) -> None:
        self.poison = poison
        self.batches: list[list[int]] = []

    def __call__(self, chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
        self.batches.append([one.index for one in chunks])
        if any(one.index == self.poison for one in chunks):
            raise Killed
        return [EMPTY] * len(chunks)


def poison_guard(progress_actor: ProgressActor, num_blocks: int = 1) -> PoisonGuard:
    return PoisonGuard(num_blocks, progress_actor.begin, progress_actor.end, max_deaths=2)


BLOCK = [chunk(i) for i in range(4)]


def test_new_actor_reports_no_blocks() -> None:
    progress_actor, model = ProgressActor(), Model(poison=0)
    with pytest.raises(Killed):
        poison_guard(progress_actor, 0).run(BLOCK, model)
    assert progress_actor.begin("block 1:0") == 0


def test_poison_chunk_fails_alone_after_so_many_deaths() -> None:
    progress_actor, model = ProgressActor(), Model(poison=2)
    num_deaths = 0
    while True:
        try:
            results = poison_guard(progress_actor).run(BLOCK, model)
            break
        except Killed:
            num_deaths += 1
    assert num_deaths == 3  # once with its block, twice alone
    failure = results[2]
    assert isinstance(failure, ChunkFailure)
    assert failure.code == POISON
    assert [results[i] for i in (0, 1, 3)] == [EMPTY] * 3


def test_block_that_was_running_at_only_one_death_is_retried_whole() -> None:
    progress_actor, model = ProgressActor(), Model()
    poison_guard(progress_actor).run(BLOCK, model)
    assert model.batches == [[0, 1, 2, 3]]


def test_block_of_a_node_that_was_lost_leaves_nothing_in_the_ledger() -> None:
    progress_actor, model = ProgressActor(), Model()
    poison_guard(progress_actor).run(BLOCK, model)
    assert progress_actor.begin("block 1:0") == 0
    assert progress_actor.begin("1:0") == 0


def test_only_blocks_that_may_have_been_running_are_isolated() -> None:
    progress_actor, model = ProgressActor(), Model()
    careful = poison_guard(progress_actor, 2)
    told: list[str] = []
    careful._begin = lambda key: told.append(key) or 0  # type: ignore[func-returns-value]  # a spy
    for recording in "123":
        careful.run([chunk(0, recording)], model)
    assert told == ["block 1:0", "block 2:0"]


def test_block_without_chunks_is_not_counted() -> None:
    model = Model()
    assert poison_guard(ProgressActor()).run([], model) == []


def test_progress_actor_adds_up_the_computed_work() -> None:
    progress_actor = ProgressActor()
    for audio_s in (1.5, 2.0):
        progress_actor.add(audio_s, 10)
    assert progress_actor.computed() == Computed(3.5, 20)


class Engine:
    max_in_flight = 1
    is_reentrant = False

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        return [EMPTY] * len(batch)

    def cost(self, num_samples: int) -> int:
        return num_samples


def test_time_of_a_batch_is_shared_out_by_length() -> None:
    batches: list[tuple[float, int]] = []
    timed = TimedRecognizer(Engine(), lambda *batch: batches.append(batch))
    short, long = np.zeros(1000, np.int16), np.zeros(3000, np.int16)
    timed.transcribe([short, long])
    short_s, long_s = timed.take_time(short), timed.take_time(long)
    assert long_s == pytest.approx(3 * short_s)
    assert batches == [(0.25, 4000)]
    assert timed.take_time(long) == 0.0


def test_threads_share_one_loop() -> None:
    loop = LoopThread("test-loop")

    async def name() -> str:
        return threading.current_thread().name

    assert {loop.run(name()) for _ in range(3)} == {"test-loop"}
