"""Runs a batch job's recordings through the running service, on its spare capacity.

Decoding and cutting are done by the job's own actors at low CPU priority. Recognition and
punctuation are calls to the service's deployments marked `background`: they run in short
batches, only while no other request waits, and few at a time. Before that, the job checks that
the service would give the texts that its fingerprints promise.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray import serve
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError
from tenacity import AsyncRetrying, retry_if_exception_type

from serve_app.batch.arrow_tables import KEY, AudioEnd, Planned, RecognizedRecording, read_audio
from serve_app.batch.outputs import OutputStore
from serve_app.batch.pending import Work
from serve_app.batch.progress import Computed
from serve_app.batch.punctuate_stage import (
    Failed,
    Finished,
    FinishTask,
    Outcome,
    TranscriptWriter,
    failed_of,
)
from serve_app.batch.ray_data import (
    PolledProgress,
    configured,
    open_progress_actor,
    plan_blocks,
    planned_of,
)
from serve_app.batch.recognize_stage import LoopThread
from serve_app.batch.records import PackIdentity
from serve_app.batch.remote_reader import READ_RANGE_BYTES, ReadOptions
from serve_app.batch.segment_stage import RecordingSegmenter
from serve_app.core.errors import ConfigurationError, ServiceError, StartFailed
from serve_app.core.records import (
    Chunk,
    ChunkFailure,
    PackRole,
    Recognition,
    RequestContext,
    Stage,
    StageReadiness,
    Utterance,
)
from serve_app.deployments.handles import RemoteRecognizer
from serve_app.deployments.retries import RetryPolicy, call_until_answered
from serve_app.inference.fingerprint import output_settings_of
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.preemption import lower_priority
from serve_app.settings import Settings
from serve_app.settings.batch import TextFormat
from serve_app.transcript.fanout import fan_out
from serve_app.transcript.itn import TextRules
from serve_app.transcript.segmentation import grouped
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask

ResultT = TypeVar("ResultT")

_NICE = 15
_PATIENCE_S = 900.0
_BACKOFF = Backoff(first_s=1.0, longest_s=15.0)


class SpareCapacity:
    """Recordings through the running service; see the module.

    Args:
        settings: of the job; `app_name` names the service.
        output: where to write.
        formats: what to write beside JSON.
        models: that the stages use.
    """

    def __init__(
        self,
        settings: Settings,
        output: str,
        formats: tuple[TextFormat, ...],
        models: Mapping[PackRole, PackIdentity],
    ) -> None:
        self._settings = settings
        self._models = dict(models)
        self._arguments = (settings, output, formats, self._models)
        self._computed = PolledProgress()

    def outcomes(self, works: Sequence[Work]) -> Generator[Outcome]:
        """Does the work; yields what became of each recording, as it is known.

        Raises:
            StartFailed: the service does not run.
            ConfigurationError: it would give other texts than the job's settings say.
            RayError: the job as a whole cannot go on.
        """
        check_service(self._settings, self._models)
        progress_actor = open_progress_actor()
        self._computed.ask(progress_actor)
        batch = self._settings.batch
        tables = [_work_table(numbers, works) for numbers in plan_blocks(works)]
        with configured(batch.block_bytes, batch.object_store_bytes):
            dataset = ray.data.from_blocks(tables).map_batches(
                TranscribeOnServe,
                fn_constructor_args=(*self._arguments, progress_actor),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=batch.segmenters.num_cpus,
                compute=ActorPoolStrategy(
                    size=batch.segmenters.num_actors,
                    max_concurrent_calls_per_actor=batch.open_recordings,
                    max_tasks_in_flight_per_actor=batch.open_recordings,
                    enable_true_multi_threading=True,
                ),
            )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.column("outcome").to_pylist():
                outcome: Finished | Failed = pickle.loads(row)  # noqa: S301 - our own actor's
                yield outcome

    def computed(self) -> Computed:
        """Returns what the service has recognized for this run; from any thread."""
        return self._computed.value()


class TranscribeOnServe:
    """As Ray Data calls it, a thread for each open recording."""

    def __init__(
        self,
        settings: Settings,
        output: str,
        formats: tuple[TextFormat, ...],
        models: Mapping[PackRole, PackIdentity],
        progress_actor: Any,
    ) -> None:
        self._progress_actor = progress_actor
        if sys.platform.startswith("linux"):
            lower_priority(_NICE)
        self._settings = settings
        batch = settings.batch
        self._segmenter = RecordingSegmenter(
            load_vad(settings).engine if "vad" in settings.stages else None,
            segmentation_options(settings),
            ReadOptions(READ_RANGE_BYTES, batch.read_attempts),
        )
        self._loop = LoopThread("serve-calls")
        self._room = asyncio.Semaphore(batch.serve_in_flight)
        recognizer = serve.get_deployment_handle("Recognizer", settings.app_name)
        self._recognizer = RemoteRecognizer(recognizer, settings)
        self._retry_policy = RetryPolicy(
            settings.max_attempts,
            settings.punctuator.call_timeout_s,
            settings.replacement_timeout_s,
        )
        self._punctuator: Any = None
        if "punctuation" in settings.stages:
            self._punctuator = serve.get_deployment_handle("Punctuator", settings.app_name)
        self._writer = TranscriptWriter(
            self._punctuate if self._punctuator is not None else None,
            settings.punctuator.sentence_break_s,
            models,
            OutputStore(output, formats, subtitles=settings.subtitles.options()),
            rules=TextRules(settings.batch.itn, settings.text.all_replacements()),
        )

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():
            work: Work = pickle.loads(row["work"])  # noqa: S301 - our own driver's
            outcome = self._loop.run(self._transcribe(row["number"], work))
            yield pa.table({"outcome": pa.array([pickle.dumps(outcome)], pa.binary())})

    async def _transcribe(self, number: int, work: Work) -> Finished | Failed:
        # The number alone would be that of another job's recording, too.
        context = RequestContext(f"{KEY}-{work.fingerprint[:8]}-{number}", KEY, background=True)
        planned = planned_of(number, work)
        ends: list[AudioEnd] = []
        utterances: list[Utterance] = []
        spent = [0.0]

        async def recognize(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
            async with self._room:
                began_s = time.monotonic()
                results = await patiently(lambda: self._recognizer.recognize(chunks))
                spent[0] += time.monotonic() - began_s
                self._progress_actor.add.remote(sum(chunk.duration_s for chunk in chunks), 0)
                return results

        groups = self._groups(planned, context, ends)
        try:
            window = self._settings.batch.serve_in_flight + 1
            recognized = fan_out(groups, recognize, window)
            async with aclosing(groups), aclosing(recognized):
                utterances += [utterance async for utterance in recognized]
            heard = RecognizedRecording(number, tuple(utterances), spent[0], ends[0])
            if heard.error is not None:
                return failed_of(heard)
            task = FinishTask(work.item, work.fingerprint, work.stages, heard)
            return await self._writer.finish(task)
        except (ServiceError, RayError) as error:
            reason = f"the service did not do it: {error}".splitlines()[0]
            return Failed(number, "service_error", reason, False, 1, 0.0)

    async def _groups(
        self, planned: Planned, context: RequestContext, ends: list[AudioEnd]
    ) -> AsyncGenerator[list[Chunk]]:
        """Yields the chunks that travel together; puts the recording's end into `ends`."""
        tables = self._segmenter.tables([planned])
        max_group_s = self._settings.segmenter.max_group_s
        while True:
            table = await asyncio.to_thread(next, tables, None)
            if table is None:
                return
            numbered, ended = read_audio(table)
            ends += [end for _, end in ended]
            chunks = [replace(chunk, context=context) for _, chunk in numbered]
            for group in grouped(chunks, max_group_s):
                yield group

    async def _punctuate(self, task: PunctuationTask) -> tuple[PunctuationResult, float]:
        background = replace(task, context=replace(task.context, background=True))
        began_s = time.monotonic()

        async def call() -> PunctuationResult:
            return await call_until_answered(
                lambda: self._punctuator.punctuate.remote(background),
                retry_policy=self._retry_policy,
                stage="punctuation",
                context=background.context,
            )

        result = await patiently(call)
        return result, time.monotonic() - began_s


async def patiently(
    call: Callable[[], Awaitable[ResultT]],
    patience_s: float = _PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ResultT:
    """Returns a call's result, however often the service is away meanwhile.

    A service that is deployed anew is away for a minute, and nobody waits for this.

    Raises:
        ServiceError: it was away for longer than `patience_s`.
        RayError: likewise.
    """
    gives_up_s = clock() + patience_s
    retrying = AsyncRetrying(
        stop=lambda state: clock() + state.upcoming_sleep > gives_up_s,
        wait=_BACKOFF,
        retry=retry_if_exception_type((ServiceError, RayError, ConnectionError, TimeoutError)),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(call)


def _work_table(numbers: Sequence[int], works: Sequence[Work]) -> pa.Table:
    return pa.table(
        {
            "number": pa.array(numbers, pa.int32()),
            "work": pa.array([pickle.dumps(works[number]) for number in numbers], pa.binary()),
        }
    )


_ASK_TIMEOUT_S = 120.0
_SHOWN_CHARACTERS = 24
_DEPLOYMENTS: Mapping[Stage, str] = {"asr": "Recognizer", "punctuation": "Punctuator"}
"""The stages that the service runs for a job; the others are the job's own."""


def check_running(settings: Settings) -> None:
    """Finds out whether the service is there.

    Raises:
        StartFailed: it is not.
    """
    application = serve.status().applications.get(settings.app_name)
    if application is None or application.status != "RUNNING":
        state = "not there" if application is None else application.status
        raise StartFailed(
            f"the application {settings.app_name} is {state}; batch.resources=serve needs it"
        )


def check_service(settings: Settings, models: Mapping[PackRole, PackIdentity]) -> None:
    """Asks the service what its texts come from.

    Args:
        settings: of the job; `app_name` names the service.
        models: that the job's fingerprints name.

    Raises:
        StartFailed: it does not run.
        ConfigurationError: it would give other texts; the message names the differences.
    """
    check_running(settings)
    found: list[str] = []
    for stage, name in _DEPLOYMENTS.items():
        if stage in settings.stages:
            handle: Any = serve.get_deployment_handle(name, settings.app_name)
            answer: StageReadiness = handle.describe.remote().result(timeout_s=_ASK_TIMEOUT_S)
            found += differences(answer, settings, models)
    if found:
        raise ConfigurationError(
            "the service is not what the job's settings say, so that its texts would be others: "
            f"{'; '.join(found)}. Give the job the profile and the --set of the service"
        )


def differences(
    served: StageReadiness, settings: Settings, models: Mapping[PackRole, PackIdentity]
) -> list[str]:
    """Returns what of a stage is other than in a job's settings, a phrase each."""
    found: list[str] = []
    wanted = models[served.stage]
    if served.checksum != wanted.checksum:
        found.append(
            f"{served.stage} runs the pack {served.pack} ({_shown(served.checksum)}), "
            f"the job names {wanted.name} ({_shown(wanted.checksum)})"
        )
    drafter = models.get("draft")
    ours = dict(output_settings_of(settings, served.stage, drafter.checksum if drafter else None))
    theirs = dict(served.output_settings)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            there, here = (_shown(values.get(name, "unset")) for values in (theirs, ours))
            found.append(f"{name} is {there} there and {here} in the job")
    return found


def _shown(value: str) -> str:
    return value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
