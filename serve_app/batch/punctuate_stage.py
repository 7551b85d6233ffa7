"""The last stage of a batch job: punctuation, and writing the results.

A recording is assembled in the driver, the only place that receives all of its utterances.
Hence this stage is a pool of actors outside of Ray Data (`FinisherPool`); see decision 0015.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError, RayTaskError
from tenacity import AsyncRetrying, stop_after_attempt

from serve_app.batch.arrow_tables import KEY, RecognizedRecording
from serve_app.batch.outputs import OutputStore
from serve_app.batch.records import BatchItem, FinishedRecording, PackIdentity, StageTimes
from serve_app.core.ports import Punctuator
from serve_app.core.records import PackRole, RecordingEnd, RequestContext, Stage, Utterance
from serve_app.core.speakers import Diarization, SpeakerOptions
from serve_app.inference.batched import BatchedPunctuator, punctuator_limits
from serve_app.inference.loading import load_punctuator
from serve_app.scheduling.backoff import Backoff
from serve_app.scheduling.micro_batcher import BatchLimits
from serve_app.settings import Settings
from serve_app.settings.batch import TextFormat
from serve_app.speakers.diarization import diarize
from serve_app.speakers.transcripts import (
    NO_LABELS,
    RecordingVoices,
    labelled,
    missing_labels,
)
from serve_app.transcript.assembly import assemble
from serve_app.transcript.itn import AS_SAID, TextRules, apply_rules
from serve_app.transcript.sentences import PunctuationResult, PunctuationTask
from serve_app.transcript.subtitles import SubtitleOptions
from serve_app.transcript.transcript import Transcript, collect

_LOG = logging.getLogger(__name__)

_WORDS_AT_ONCE = 400
"""Words of a long text per call, so that short texts need not wait for all of it."""

_WRITE_ATTEMPTS = 5
_BACKOFF = Backoff(first_s=0.5)
ANY_SPEAKERS = SpeakerOptions()


@dataclass(frozen=True, slots=True)
class FinishTask:
    """A completely recognized recording to punctuate and write.

    Attributes:
        item: as the source names it.
        fingerprint: of content and configuration.
        stages: to run.
        heard: its utterances.
    """

    item: BatchItem
    fingerprint: str
    stages: frozenset[Stage]
    heard: RecognizedRecording


@dataclass(frozen=True, slots=True)
class Finished:
    """A recording whose transcript is written.

    Attributes:
        number: of the recording in this run.
        audio_s: its length.
        times: that it took.
    """

    number: int
    audio_s: float
    times: StageTimes


class TimedPunctuator(BatchedPunctuator):
    """A punctuator that measures the share of each task in the time of its batch."""

    def __init__(self, engine: Punctuator, limits: BatchLimits) -> None:
        super().__init__(engine, limits)
        self._took_s: dict[int, float] = {}

    async def punctuate_timed(self, task: PunctuationTask) -> tuple[PunctuationResult, float]:
        """Returns the punctuation and its compute time in s."""
        result = await self.punctuate(task)
        return result, self._took_s.pop(id(task), 0.0)

    def _compute(self, batch: list[PunctuationTask]) -> list[PunctuationResult]:
        began_s = time.monotonic()
        results = super()._compute(batch)
        took_s = time.monotonic() - began_s
        num_words = max(1, sum(len(task.words) for task in batch))
        for task in batch:
            self._took_s[id(task)] = took_s * len(task.words) / num_words
        return results


PunctuateTimed: TypeAlias = Callable[[PunctuationTask], Awaitable[tuple[PunctuationResult, float]]]
"""Returns the punctuation and its compute time in s."""


class TranscriptWriter:
    """Turns recognized recordings into transcripts, and writes them.

    Args:
        punctuate: None without a punctuation stage.
        break_s: pause that ends a sentence; None for none.
        models: that the stages use.
        store: where to write.
        rules: changes to the text.
        speakers: what is known about the speakers of items that say nothing of them.
    """

    def __init__(
        self,
        punctuate: PunctuateTimed | None,
        break_s: float | None,
        models: Mapping[PackRole, PackIdentity],
        store: OutputStore,
        *,
        rules: TextRules = AS_SAID,
        speakers: SpeakerOptions = ANY_SPEAKERS,
    ) -> None:
        self._punctuate = punctuate
        self._break_s = break_s
        self._models = dict(models)
        self._store = store
        self._rules = rules
        self._speakers = speakers

    async def finish(self, task: FinishTask) -> Finished:
        """Punctuates a recording and writes its outputs; a repeated call does no harm.

        Raises:
            OSError: the outputs cannot be written.
        """
        heard = task.heard
        transcript, punctuate_s = await self._transcript(task)
        audio_s = transcript.duration_ms / 1000
        wall_s = time.time() - heard.end.began_unix_s
        times = StageTimes(heard.end.segment_s, heard.recognize_s, punctuate_s, wall_s)
        # Drafts are part of recognition.
        roles: set[PackRole] = {*task.stages, "draft"}
        models = {role: pack for role, pack in self._models.items() if role in roles}
        await self._write(
            FinishedRecording(task.item, task.fingerprint, transcript, times, models, audio_s)
        )
        return Finished(heard.number, audio_s, times)

    async def _transcript(self, task: FinishTask) -> tuple[Transcript, float]:
        heard = task.heard
        call = self._punctuate if "punctuation" in task.stages else None
        spent_s = 0.0

        async def punctuate(words: PunctuationTask) -> PunctuationResult:
            nonlocal spent_s
            if call is None:
                raise RuntimeError("there is no punctuation stage")
            result, took_s = await punctuate_in_parts(call, words)
            spent_s += took_s
            return result

        def end() -> RecordingEnd:
            spans = [one.summary for one in heard.utterances]
            return RecordingEnd(
                heard.end.duration_ms,
                tuple(sorted(spans, key=lambda span: span.start_ms)),
                damage=heard.end.damage,
                notices=heard.end.notices,
                num_channels=heard.end.num_channels,
            )

        events = assemble(
            RequestContext(str(heard.number), KEY),
            _each(heard.utterances),
            None if call is None else punctuate,
            self._break_s,
            end,
        )
        transcript = await collect(apply_rules(events, self._rules))
        if "speakers" in task.stages:
            began_s = time.monotonic()
            transcript = await asyncio.to_thread(self._with_labels, transcript, task)
            spent_s += time.monotonic() - began_s
        return transcript, spent_s

    def _with_labels(self, transcript: Transcript, task: FinishTask) -> Transcript:
        """Returns the transcript with speakers, or with a notice of labels that are missing."""
        voices = RecordingVoices()
        for utterance in task.heard.utterances:
            voices.add(utterance)
        failed = [(one.start_ms, one.end_ms) for one in task.heard.utterances if one.voices is None]
        notices = (*transcript.notices, *missing_labels(failed))
        if not voices:
            return replace(transcript, diarization=Diarization(), notices=notices)
        try:
            found = diarize(voices.windows(), task.item.speakers or self._speakers, None)
        except Exception:
            # The text is complete: a job of thousands of recordings does not end here.
            _LOG.exception("speakers of %s were not told apart", task.item.id)
            return replace(transcript, notices=(*notices, NO_LABELS))
        diarization = voices.in_recording_time(found)
        return labelled(replace(transcript, diarization=diarization, notices=notices))

    async def _write(self, record: FinishedRecording) -> None:
        # Each store has its own errors for a broken connection, so all are retried.
        retrying = AsyncRetrying(
            stop=stop_after_attempt(_WRITE_ATTEMPTS), wait=_BACKOFF, reraise=True
        )
        await retrying(asyncio.to_thread, self._store.write, record)


def subtitles_of(settings: Settings) -> SubtitleOptions:
    """Returns the options of a job's subtitles, which name speakers and separate channels."""
    with_speakers = "speakers" in settings.stages
    options = settings.subtitles.options()
    return replace(options, with_speakers=with_speakers, with_channels=True)


class Finisher:
    """An actor that punctuates several recordings at once and writes their outputs.

    Args:
        settings: of the job.
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
        punctuate: PunctuateTimed | None = None
        if "punctuation" in settings.stages:
            # No caller waits, so batches may be long.
            limits = replace(punctuator_limits(settings), max_s=None)
            engine = load_punctuator(settings).engine
            punctuate = TimedPunctuator(engine, limits).punctuate_timed
        self._writer = TranscriptWriter(
            punctuate,
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

    async def finish(self, tasks: Sequence[FinishTask]) -> list[Finished]:
        """Punctuates recordings and writes their outputs; a repeated call does no harm.

        Raises:
            OSError: the outputs cannot be written.
        """
        return list(await asyncio.gather(*(self._writer.finish(task) for task in tasks)))


async def punctuate_in_parts(
    punctuate: PunctuateTimed, task: PunctuationTask
) -> tuple[PunctuationResult, float]:
    """Punctuates a text a few hundred words at a time, with the result of the whole.

    Returns:
        The punctuation, and its compute time in s.
    """
    pairs: list[tuple[str, str]] = []
    state = task.state
    spent_s = 0.0
    last = max(0, len(task.words) - 1) // _WORDS_AT_ONCE
    for i in range(last + 1):
        words = task.words[i * _WORDS_AT_ONCE : (i + 1) * _WORDS_AT_ONCE]
        part = replace(task, state=state, words=words, final=task.final and i == last)
        result, took_s = await punctuate(part)
        pairs += result.pairs
        state = result.state
        spent_s += took_s
    return PunctuationResult(tuple(pairs), state), spent_s


async def _each(utterances: Sequence[Utterance]) -> AsyncGenerator[Utterance]:
    for utterance in utterances:
        yield utterance


_FINISHES_PER_CALL = 32
_CALLS_PER_FINISHER = 2
_FINISH_RETRIES = 3


class FinisherPool:
    """Distributes recordings to the finishers, a limited number at a time."""

    def __init__(
        self,
        settings: Settings,
        *arguments: Any,
    ) -> None:
        pool = settings.batch.punctuators
        actor: Any = ray.remote(Finisher).options(
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            max_restarts=-1,
            max_task_retries=_FINISH_RETRIES,
        )
        self._actors = [actor.remote(*arguments) for _ in range(pool.num_actors)]
        self._queued: list[FinishTask] = []
        self._calls: dict[ray.ObjectRef[Any], tuple[int, list[FinishTask]]] = {}
        self._load = [0] * pool.num_actors

    def add(self, task: FinishTask) -> None:
        self._queued.append(task)

    def take(self) -> Iterator[Finished | Failed]:
        """Yields finished recordings; blocks only while too many are queued."""
        self._call_finishers(len(self._queued) >= _FINISHES_PER_CALL)
        yield from self._collect(0.0)
        while len(self._queued) > _FINISHES_PER_CALL:
            yield from self._collect(None)
            self._call_finishers(full=True)

    def drain(self) -> Iterator[Finished | Failed]:
        """Yields all remaining recordings."""
        while self._queued or self._calls:
            self._call_finishers(full=False)
            yield from self._collect(None)

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def _call_finishers(self, full: bool) -> None:
        """Makes calls while there is room; with `full`, partial ones only if all are idle."""
        while self._queued and min(self._load) < _CALLS_PER_FINISHER:
            if full and len(self._queued) < _FINISHES_PER_CALL and any(self._load):
                return
            tasks = self._queued[:_FINISHES_PER_CALL]
            del self._queued[:_FINISHES_PER_CALL]
            self._submit(tasks)

    def _submit(self, tasks: list[FinishTask]) -> None:
        chosen = self._load.index(min(self._load))
        self._load[chosen] += 1
        self._calls[self._actors[chosen].finish.remote(tasks)] = (chosen, tasks)

    def _collect(self, timeout_s: float | None) -> Iterator[Finished | Failed]:
        if not self._calls:
            return
        done, _ = ray.wait(list(self._calls), num_returns=1, timeout=timeout_s)
        for ref in done:
            chosen, tasks = self._calls.pop(ref)
            self._load[chosen] -= 1
            try:
                finished: list[Finished] = ray.get(ref)
            except RayTaskError:
                raise
            except RayActorError as error:
                yield from self._handle_lost(tasks, error)
                continue
            yield from finished

    def _handle_lost(self, tasks: list[FinishTask], error: RayActorError) -> Iterator[Failed]:
        """Retries recordings alone after repeated deaths; one that still kills has failed."""
        if len(tasks) > 1:
            for task in tasks:
                self._submit([task])
            return
        reason = f"{_FINISH_RETRIES + 1} finishers died on it: {error}".splitlines()[0]
        heard = tasks[0].heard
        audio_s = heard.end.duration_ms / 1000
        yield Failed(heard.number, "finisher_died", reason, False, 1, audio_s)


@dataclass(frozen=True, slots=True)
class Failed:
    """A recording that failed.

    Attributes:
        number: of the recording in this run.
        kind: code of the error.
        reason: a sentence.
        permanent: a retry would fail again.
        attempts: number of attempts.
        audio_s: decoded length.
    """

    number: int
    kind: str
    reason: str
    permanent: bool
    attempts: int
    audio_s: float


@dataclass(frozen=True, slots=True)
class Recognized:
    """Progress of the recognizers.

    Attributes:
        audio_s: length of all utterances returned so far.
        num_open: recordings of which only a part has returned.
    """

    audio_s: float
    num_open: int


Outcome: TypeAlias = Finished | Failed | Recognized


def failed_of(heard: RecognizedRecording) -> Failed:
    kind, reason = heard.error or ("engine_error", "unknown")
    end = heard.end
    return Failed(heard.number, kind, reason, end.permanent, end.attempts, end.duration_ms / 1000)
