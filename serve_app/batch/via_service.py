"""Runs the recordings of a batch job on the spare capacity of the running service.

The job's own actors decode and cut recordings, at a low CPU priority. Recognition and
punctuation are calls to the deployments of the service, marked as `background` in their
request context: these run in short batches, only while no other request waits, and few at
once. Before it starts, the job checks that the service's texts would match its fingerprints.
"""

from __future__ import annotations

import asyncio
import logging
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
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import ray
from ray import serve
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError, RayTaskError
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
    subtitles_of,
)
from serve_app.batch.ray_data import (
    PolledProgress,
    data_context,
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
from serve_app.core.speakers import SpeakerWindows
from serve_app.deployments.handles import RemoteRecognizer
from serve_app.deployments.retries import RetryPolicy, call_until_answered, failure_kind_of
from serve_app.deployments.speakers import RemoteSpeakerEmbedder
from serve_app.inference.fingerprint import output_settings_of
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.preemption import lower_priority
from serve_app.settings import Settings
from serve_app.settings.batch import TextFormat
from serve_app.transcript.fanout import EmbedVoices, fan_out
from serve_app.transcript.itn import TextRules
from serve_app.transcript.segmentation import grouped
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask

ResultT = TypeVar("ResultT")

_LOG = logging.getLogger(__name__)

_NICE = 15
_GIVE_UP_AFTER_S = 900.0
_BACKOFF = Backoff(first_s=1.0, longest_s=15.0)


class SpareCapacity:
    """Processes recordings on the running service.

    Args:
        settings: of the job; `app_name` names the service.
        output: of the job.
        formats: to write beside JSON.
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
        """Processes recordings; yields the outcome of each as soon as it is known.

        Raises:
            StartFailed: the service is not running.
            ConfigurationError: its texts would not be those of the job's settings.
            RayError: the job as a whole has failed.
        """
        check_service(self._settings, self._models)
        progress_actor = open_progress_actor()
        self._computed.follow(progress_actor)
        batch = self._settings.batch
        tables = [_work_table(numbers, works) for numbers in plan_blocks(works)]
        with data_context(batch.block_bytes, batch.object_store_bytes):
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
        """Returns what the service has recognized for this run; thread-safe."""
        return self._computed.value()


class TranscribeOnServe:
    """Transcribes recordings for Ray Data, which calls it with a thread per open recording."""

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
        self._call_slots = asyncio.Semaphore(batch.serve_in_flight)
        self._embed_slots = asyncio.Semaphore(batch.serve_in_flight)
        recognizer = serve.get_deployment_handle("Recognizer", settings.app_name)
        self._recognizer = RemoteRecognizer(recognizer, settings)
        self._retry_policy = RetryPolicy(
            settings.max_attempts,
            settings.punctuator.call_timeout_s,
            settings.replacement_timeout_s,
        )
        self._embedder: RemoteSpeakerEmbedder | None = None
        if "speakers" in settings.stages:
            embedder = serve.get_deployment_handle(_DEPLOYMENTS["speakers"], settings.app_name)
            self._embedder = RemoteSpeakerEmbedder(embedder, settings)
        self._punctuator: Any = None
        if "punctuation" in settings.stages:
            self._punctuator = serve.get_deployment_handle("Punctuator", settings.app_name)
        self._writer = TranscriptWriter(
            self._punctuate if self._punctuator is not None else None,
            settings.punctuator.sentence_break_s,
            models,
            OutputStore(
                output,
                formats,
                subtitles=subtitles_of(settings),
                layout=settings.batch.layout,
            ),
            rules=TextRules(settings.batch.itn, settings.text.all_replacements()),
            speakers=settings.batch.speaker_options(),
        )

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        for row in table.to_pylist():
            work: Work = pickle.loads(row["work"])  # noqa: S301 - our own driver's
            outcome = self._loop.run(self._transcribe(row["number"], work))
            yield pa.table({"outcome": pa.array([pickle.dumps(outcome)], pa.binary())})

    async def _transcribe(self, number: int, work: Work) -> Finished | Failed:
        # Another job may have a recording with the same number.
        context = RequestContext(f"{KEY}-{work.fingerprint[:8]}-{number}", KEY, background=True)
        planned = planned_of(number, work)
        ends: list[AudioEnd] = []
        utterances: list[Utterance] = []
        spent = [0.0]

        async def recognize(chunks: list[Chunk]) -> list[Recognition | ChunkFailure]:
            async with self._call_slots:
                began_s = time.monotonic()
                results = await retry_while_unreachable(lambda: self._recognizer.recognize(chunks))
                spent[0] += time.monotonic() - began_s
                self._progress_actor.add.remote(sum(chunk.duration_s for chunk in chunks), 0)
                return results

        embedder = self._embedder if "speakers" in work.stages else None
        embed: EmbedVoices | None = None if embedder is None else partial(self._embed, embedder)
        groups = self._groups(planned, context, ends)
        try:
            max_in_flight = self._settings.batch.serve_in_flight + 1
            recognized = fan_out(groups, recognize, max_in_flight, embed)
            async with aclosing(groups), aclosing(recognized):
                utterances += [utterance async for utterance in recognized]
            recording = RecognizedRecording(number, tuple(utterances), spent[0], ends[0])
            if recording.error is not None:
                return failed_of(recording)
            task = FinishTask(work.item, work.fingerprint, work.stages, recording)
            return await self._writer.finish(task)
        except (ServiceError, RayError) as error:
            reason = f"the service failed: {error}".splitlines()[0]
            return Failed(number, "service_error", reason, False, 1, 0.0)

    async def _embed(
        self, embedder: RemoteSpeakerEmbedder, chunks: list[Chunk]
    ) -> list[SpeakerWindows | None]:
        """Returns the windows of each chunk; None for all of them if the model failed on them.

        Raises:
            ServiceError: the service was unreachable for too long; a later run may succeed.
            RayError: likewise.
        """

        async def call() -> list[SpeakerWindows | None]:
            try:
                return [*await embedder.embed(chunks)]
            except RayTaskError as error:
                if failure_kind_of(error) is not None:
                    raise
                # It would fail again; the transcript is complete without labels, and says so.
                _LOG.exception("voices were not embedded")
                return [None] * len(chunks)

        async with self._embed_slots:
            return await retry_while_unreachable(call)

    async def _groups(
        self, planned: Planned, context: RequestContext, ends: list[AudioEnd]
    ) -> AsyncGenerator[list[Chunk]]:
        """Yields groups of chunks; appends the end of the recording to `ends`."""
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

        result = await retry_while_unreachable(call)
        return result, time.monotonic() - began_s


async def retry_while_unreachable(
    call: Callable[[], Awaitable[ResultT]],
    timeout_s: float = _GIVE_UP_AFTER_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> ResultT:
    """Returns the result of a call, retried while the service is unreachable.

    A redeployment takes about a minute, and no caller waits for a job.

    Raises:
        ServiceError: the service was unreachable for longer than `timeout_s`.
        RayError: likewise.
    """

    async def attempt() -> ResultT:
        # Tenacity 9.2 awaits the results of coroutine functions only.
        return await call()

    gives_up_s = clock() + timeout_s
    retrying = AsyncRetrying(
        stop=lambda state: clock() + state.upcoming_sleep > gives_up_s,
        wait=_BACKOFF,
        retry=retry_if_exception_type((ServiceError, RayError, ConnectionError, TimeoutError)),
        sleep=sleep,
        reraise=True,
    )
    return await retrying(attempt)


def _work_table(numbers: Sequence[int], works: Sequence[Work]) -> pa.Table:
    return pa.table(
        {
            "number": pa.array(numbers, pa.int32()),
            "work": pa.array([pickle.dumps(works[number]) for number in numbers], pa.binary()),
        }
    )


_ASK_TIMEOUT_S = 120.0
_MAX_SHOWN_CHARACTERS = 24
_DEPLOYMENTS: Mapping[Stage, str] = {
    "asr": "Recognizer",
    "punctuation": "Punctuator",
    "speakers": "SpeakerEmbedder",
}
"""Stages that the service runs for a job, with their deployments."""


def check_running(settings: Settings) -> None:
    """Checks that the service is running.

    Raises:
        StartFailed: it is not.
    """
    application = serve.status().applications.get(settings.app_name)
    if application is None or application.status != "RUNNING":
        state = "not deployed" if application is None else application.status
        raise StartFailed(
            f"the application {settings.app_name} is {state}; batch.resources=serve needs it"
        )


def check_service(settings: Settings, models: Mapping[PackRole, PackIdentity]) -> None:
    """Checks that the service gives the texts of the job's settings.

    Args:
        settings: of the job; `app_name` names the service.
        models: of the job's fingerprints.

    Raises:
        StartFailed: it is not running.
        ConfigurationError: it would not; the message lists the differences.
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
            "the settings of the service differ from the job's, so its texts would differ: "
            f"{'; '.join(found)}. Give the job the profile and the --set of the service"
        )


def differences(
    served: StageReadiness, settings: Settings, models: Mapping[PackRole, PackIdentity]
) -> list[str]:
    """Returns the differences of a stage from a job's settings, a phrase each."""
    found: list[str] = []
    wanted = models[served.stage]
    if served.checksum != wanted.checksum:
        found.append(
            f"{served.stage} runs the pack {served.pack} ({_shortened(served.checksum)}), "
            f"the job has {wanted.name} ({_shortened(wanted.checksum)})"
        )
    drafter = models.get("draft")
    ours = dict(output_settings_of(settings, served.stage, drafter.checksum if drafter else None))
    theirs = dict(served.output_settings)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            there, here = (_shortened(values.get(name, "unset")) for values in (theirs, ours))
            found.append(f"{name} is {there} in the service and {here} in the job")
    return found


def _shortened(value: str) -> str:
    return value if len(value) <= _MAX_SHOWN_CHARACTERS else f"{value[:_MAX_SHOWN_CHARACTERS]}…"
