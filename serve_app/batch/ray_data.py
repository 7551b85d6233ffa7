"""A batch job's recordings through Ray Data, on actors of the job's own.

    plan -> segmenters -> audio -> recognizers -> words -> assembler (driver) -> finishers

What is on its way is bounded: by the blocks that Ray Data lets lie in the object store
between the stages, by those that each recognizer holds, and by the recordings that wait
for a finisher. Whoever is ahead waits.

How Ray Data 2.60 does what is relied on here (data/_internal/execution/operators/
actor_pool_map_operator.py and planner/plan_udf_map_op.py): what a callable class yields is
passed on block by block, but only if it is an ordinary generator (what an asynchronous one
yields is gathered first); a lost actor is started again and its tasks with it, without end;
a block that is lost is made again by running its task anew.
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
_ASK_TIMEOUT_S = 2.0


def plan_blocks(works: Sequence[Work]) -> list[list[int]]:
    """Divides recordings into what a segmenter takes at once; returns their numbers.

    Long ones are a block each, the longest first, and every other block until there
    are none left: begun early, they do not stick out at the end, and short ones flow
    beside them. A recording of unknown size counts as short.
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
    """Recordings through actors of the job's own.

    Args:
        settings: of the job.
        output: where the finishers write.
        formats: what they write beside JSON.
        models: that the stages use.
        recognize: what Ray Data runs as recognizer.
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
        """Does the work; yields what became of each recording, as it is known.

        Raises:
            RayError: the job as a whole cannot go on.
        """
        assembler = Assembler()
        finishers = FinisherPool(self._settings, *self._finishing)
        progress_actor = open_progress_actor()
        self._computed.ask(progress_actor)
        try:
            for table in self._words(works, progress_actor):
                for heard in assembler.add(read_words(table)):
                    if heard.error is None:
                        work = works[heard.number]
                        finishers.add(FinishTask(work.item, work.fingerprint, work.stages, heard))
                    else:
                        yield failed_of(heard)
                yield Recognized(assembler.audio_ms / 1000, assembler.num_open)
                yield from finishers.take()
            yield from finishers.drain()
        finally:
            finishers.close()

    def computed(self) -> Computed:
        """Returns what the recognizers have computed in this run; from any thread."""
        return self._computed.value()

    def _words(self, works: Sequence[Work], progress_actor: Any) -> Iterator[pa.Table]:
        """Yields tables of words; closing it ends Ray Data's actors."""
        dataset = self._dataset(works, progress_actor)
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)

    def _dataset(self, works: Sequence[Work], progress_actor: Any) -> Dataset:
        batch = self._settings.batch
        tables = [
            plan_table([planned_of(number, works[number]) for number in numbers])
            for numbers in plan_blocks(works)
        ]
        with configured(batch.block_bytes, batch.object_store_bytes):
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
def configured(block_bytes: int, object_store_bytes: int) -> Iterator[None]:
    """Sets Ray Data's context for the datasets that are made within the block."""
    before = DataContext.get_current()
    context = before.copy()
    context.target_max_block_size = block_bytes
    context.target_min_block_size = 0
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=object_store_bytes
    )
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A recording is a row, whatever is wrong with it; an exception is a defect of ours.
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
            # One more lies ready.
            max_tasks_in_flight_per_actor=num_calls + 1,
            enable_true_multi_threading=True,
        ),
    }


def planned_of(number: int, work: Work) -> Planned:
    """Returns what a segmenter needs to know of a recording."""
    item = work.item
    return Planned(number, item.id, item.uri, "vad" in work.stages, item.language)


def open_progress_actor() -> Any:
    """Returns the handle of a new `ProgressActor` beside the driver."""
    progress_actor = ray.remote(ProgressActor).options(
        num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=_here()
    )
    return progress_actor.remote()


class PolledProgress:
    """What a ledger has counted, for whoever asks now and then."""

    def __init__(self) -> None:
        self._progress_actor: Any = None
        self._lost = Computed(0.0, 0)
        self._latest = Computed(0.0, 0)

    def ask(self, progress_actor: Any) -> None:
        """Has it ask this one from now on."""
        self._progress_actor = progress_actor

    def value(self) -> Computed:
        """Returns the present value, or the last one that could be had."""
        if self._progress_actor is not None and ray.is_initialized():
            with suppress(RayError):
                self.take(ray.get(self._progress_actor.computed.remote(), timeout=_ASK_TIMEOUT_S))
        return self._lost + self._latest

    def take(self, counted: Computed) -> None:
        """Takes note of an answer; a ledger that was lost with its node begins at 0 anew."""
        if counted.audio_s < self._latest.audio_s:
            self._lost += self._latest
        self._latest = counted


def _here() -> NodeAffinitySchedulingStrategy:
    """Asks for the driver's node: what lives there dies only with the job."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
