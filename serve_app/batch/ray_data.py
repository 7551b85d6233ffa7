"""Runs the recordings of a batch job through Ray Data, on the job's own actors.

    plan -> segmenters -> audio -> recognizers -> words -> assembler (driver) -> finishers

Data in transit is bounded: by the blocks that Ray Data keeps in the object store between the
stages, by the blocks that each recognizer holds, and by the recordings queued for a finisher.
A full stage blocks the one before it.

This relies on Ray Data 2.60 (data/_internal/execution/operators/actor_pool_map_operator.py and
planner/plan_udf_map_op.py): the output of a callable class is passed on block by block if it is
an ordinary generator (that of an asynchronous one is collected first); a lost actor is
restarted and its tasks are repeated, without limit; a lost block is recomputed.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, ExecutionResources
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serve_app.batch.arrow_tables import Assembler, Planned, plan_table, read_words
from serve_app.batch.pending import Work
from serve_app.batch.progress import Computed
from serve_app.batch.punctuate_stage import FinisherPool, FinishTask, Outcome, Recognized, failed_of
from serve_app.batch.recognize_stage import ProgressActor, RecognizeChunks
from serve_app.batch.records import PackIdentity
from serve_app.batch.segment_stage import SegmentRecordings
from serve_app.core.records import PackRole
from serve_app.settings import Settings
from serve_app.settings.batch import BatchPool, TextFormat

_RECORDINGS_PER_BLOCK = 8
_BYTES_PER_BLOCK = 4 * 2**20
_POLL_TIMEOUT_S = 2.0


def plan_blocks(works: Sequence[Work]) -> list[list[int]]:
    """Divides recordings into blocks for the segmenters; returns their numbers.

    Each long recording is a block. Blocks of long recordings, the longest first, alternate
    with blocks of short ones: so the long ones start early and do not delay the end, and
    short ones are processed beside them. A recording of unknown size counts as short.
    """
    sizes = [work.size_bytes or 0 for work in works]
    long = [i for i, size in enumerate(sizes) if size > _BYTES_PER_BLOCK]
    long.sort(key=lambda i: -sizes[i])
    short: list[list[int]] = []
    filled_bytes = 0
    for i, size in enumerate(sizes):
        if size > _BYTES_PER_BLOCK:
            continue
        full = not short or len(short[-1]) >= _RECORDINGS_PER_BLOCK
        if full or filled_bytes + size > _BYTES_PER_BLOCK:
            short.append([])
            filled_bytes = 0
        short[-1].append(i)
        filled_bytes += size
    keyed = [(2 * at, [i]) for at, i in enumerate(long)]
    keyed += [(2 * at + 1, block) for at, block in enumerate(short)]
    return [block for _, block in heapq.merge(keyed[: len(long)], keyed[len(long) :])]


class OwnActors:
    """Processes recordings on the job's own actors.

    Args:
        settings: of the job.
        output: of the job.
        formats: to write beside JSON.
        models: that the stages use.
        recognize: class that Ray Data runs as recognizer.
    """

    def __init__(
        self,
        settings: Settings,
        output: str,
        formats: tuple[TextFormat, ...],
        models: Mapping[PackRole, PackIdentity],
        recognize: type[RecognizeChunks] = RecognizeChunks,
    ) -> None:
        self._settings = settings
        self._recognize = recognize
        self._finishing = (settings, output, formats, dict(models))
        self._computed = PolledProgress()

    def outcomes(self, works: Sequence[Work]) -> Generator[Outcome]:
        """Processes recordings; yields the outcome of each as soon as it is known.

        Raises:
            RayError: the job as a whole has failed.
        """
        assembler = Assembler()
        finishers = FinisherPool(self._settings, *self._finishing)
        progress_actor = open_progress_actor()
        self._computed.follow(progress_actor)
        try:
            for table in self._words(works, progress_actor):
                for recording in assembler.add(read_words(table)):
                    if recording.error is None:
                        work = works[recording.number]
                        finishers.add(
                            FinishTask(work.item, work.fingerprint, work.stages, recording)
                        )
                    else:
                        yield failed_of(recording)
                yield Recognized(assembler.audio_ms / 1000, assembler.num_open)
                yield from finishers.take()
            yield from finishers.drain()
        finally:
            finishers.close()

    def computed(self) -> Computed:
        """Returns what the recognizers have computed in this run; thread-safe."""
        return self._computed.value()

    def _words(self, works: Sequence[Work], progress_actor: Any) -> Iterator[pa.Table]:
        """Yields tables of words; closing the generator ends Ray Data's actors."""
        dataset = self._dataset(works, progress_actor)
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)

    def _dataset(self, works: Sequence[Work], progress_actor: Any) -> Dataset:
        batch = self._settings.batch
        tables = [
            plan_table([planned_of(number, works[number]) for number in numbers])
            for numbers in plan_blocks(works)
        ]
        with data_context(batch.block_bytes, batch.object_store_bytes):
            dataset: Dataset = (
                ray.data.from_blocks(tables)
                .map_batches(
                    SegmentRecordings,
                    fn_constructor_args=(self._settings,),
                    **_stage(batch.segmenters, batch.open_recordings),
                )
                .map_batches(
                    self._recognize,
                    fn_constructor_args=(self._settings, progress_actor),
                    **_stage(batch.recognizers, batch.recognizers.blocks_in_flight),
                )
            )
        return dataset


@contextmanager
def data_context(block_bytes: int, object_store_bytes: int) -> Iterator[None]:
    """Sets Ray Data's context for datasets that are created within the block."""
    before = DataContext.get_current()
    context = before.copy()
    context.target_max_block_size = block_bytes
    context.target_min_block_size = 0
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=object_store_bytes
    )
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A bad recording is a row with an error; an exception is a bug.
    context.max_errored_blocks = 0
    DataContext._set_current(context)
    try:
        yield
    finally:
        DataContext._set_current(before)


def _stage(pool: BatchPool, num_calls: int) -> dict[str, Any]:
    """Returns the options of a stage: a fixed number of actors, several calls in each."""
    return {
        "batch_size": None,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "num_cpus": pool.num_cpus,
        "num_gpus": pool.num_gpus,
        "compute": ActorPoolStrategy(
            size=pool.num_actors,
            max_concurrent_calls_per_actor=num_calls,
            # One more is prefetched.
            max_tasks_in_flight_per_actor=num_calls + 1,
            enable_true_multi_threading=True,
        ),
    }


def planned_of(number: int, work: Work) -> Planned:
    """Returns the row of the plan for a recording."""
    item = work.item
    return Planned(
        number,
        item.id,
        item.uri,
        "vad" in work.stages,
        item.language,
        work.separate_channels,
    )


def open_progress_actor() -> Any:
    """Returns the handle of a new `ProgressActor` beside the driver."""
    progress_actor = ray.remote(ProgressActor).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_on_this_node()
    )
    return progress_actor.remote()


class PolledProgress:
    """Totals of a `ProgressActor`, polled and kept across its restarts."""

    def __init__(self) -> None:
        self._progress_actor: Any = None
        self._lost = Computed(0.0, 0)
        self._latest = Computed(0.0, 0)

    def follow(self, progress_actor: Any) -> None:
        """Polls this actor from now on."""
        self._progress_actor = progress_actor

    def value(self) -> Computed:
        """Returns the current totals, or the last known ones."""
        if self._progress_actor is not None and ray.is_initialized():
            with suppress(RayError):
                self.update(
                    ray.get(self._progress_actor.computed.remote(), timeout=_POLL_TIMEOUT_S)
                )
        return self._lost + self._latest

    def update(self, counted: Computed) -> None:
        """Records an answer; an actor that was lost with its node counts from 0 again."""
        if counted.audio_s < self._latest.audio_s:
            self._lost += self._latest
        self._latest = counted


def _on_this_node() -> NodeAffinitySchedulingStrategy:
    """Schedules on the driver's node, where an actor dies only with the job."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
