"""One live session: audio in, events out.

Audio is divided into segments on a thread; the open segment is decoded again and again, one
decode at a time, and once more as a whole when it has ended. If decoding falls behind, decodes of
open segments are left out first; those of ended segments never are. A session keeps the audio of
its open segment and what waits, which is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from serve_app.core.errors import ParaserveError
from serve_app.core.live_errors import NothingToCommit, TooMuchAudio
from serve_app.core.ports import VoiceActivityDetector
from serve_app.core.records import ChunkFailure, Pcm, RequestContext
from serve_app.live.audio_input import duration_ms_of, num_bytes_of
from serve_app.live.ports import Label, Recognize
from serve_app.live.records import (
    AudioFormat,
    FinalText,
    LiveEvent,
    PartialText,
    SegmentFailed,
    SessionOptions,
    SessionStatistics,
    SpeechStarted,
    SpeechStopped,
)
from serve_app.live.segmenting import (
    MIN_COMMIT_MS,
    VAD_BLOCK_FRAMES,
    Boundary,
    Closed,
    Opened,
    Segmenter,
)
from serve_app.live.stable_text import StableText, sentences_of
from serve_app.live.texts import SegmentDecoder, SegmentWords, rewritten
from serve_app.transcript.fanout import POISON
from serve_app.transcript.itn import AS_SAID

_STEP_MS = VAD_BLOCK_FRAMES * 10
"""Audio of a step on the thread: the VAD decides no sooner."""
_STEP_PHASE_MS = 40
"""The VAD and the filter of the resampler need a little more than a block to decide it."""
_MAX_STEP_MS = 1000
_ARRIVAL_STEP_MS = 20
_MAX_CALLS = 1000
"""Calls and pieces of audio that may wait."""
_UNSTABLE_MS = 500
"""Words that end so near to the end of the audio may be cut off."""
_CUT_SEARCH_S = 2.5
"""Longest end of a segment, before it must be cut, whose words are not told while it is open: the
cut is searched there."""
_MAX_UNREAD_EVENTS = 100
"""While the caller has not read so many events, open segments are not decoded."""


RunStep: TypeAlias = Callable[
    [Callable[[], list[Boundary]], RequestContext], Awaitable[list[Boundary]]
]
"""Runs computation away from the event loop."""


class SessionObserver(Protocol):
    """Is told of latencies, for metrics."""

    def first_partial(self, seconds: float) -> None:
        """A segment has its first delta, so long after its start had arrived."""
        ...

    def final(self, seconds: float) -> None:
        """A segment has its final text, so long after the audio that ended it had arrived."""
        ...


@dataclass(frozen=True, slots=True)
class SessionModels:
    """What sessions need of the models.

    Attributes:
        recognize: recognizes chunks.
        label: predicts marks; None for texts without marks.
        vad: detects speech; None if only callers end segments.
        run: runs steps of the VAD.
    """

    recognize: Recognize
    label: Label | None
    vad: VoiceActivityDetector | None
    run: RunStep


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The settings `live.*` of the same names."""

    partial_interval_s: float = 0.6
    max_segment_s: float = 20.0
    max_lag_s: float = 30.0


@dataclass(slots=True)
class _Audio:
    """Bytes that wait for the thread, and when the first of them arrived."""

    data: bytearray
    arrived_s: float


@dataclass(frozen=True, slots=True)
class _Configure:
    options: SessionOptions


@dataclass(frozen=True, slots=True)
class _Command:
    """A call of `commit`, `clear` or `finish`, and when it arrived."""

    apply: Callable[[], list[Boundary]]
    arrived_s: float
    is_last: bool = False


@dataclass(slots=True)
class _Segment:
    """A segment whose text is not final."""

    number: int
    start_ms: int
    options: SessionOptions
    arrived_s: float
    text: StableText = field(default_factory=StableText)
    end_ms: int = 0
    ended_s: float = 0.0
    poison: ChunkFailure | None = None
    cleared: bool = False

    @property
    def has_partials(self) -> bool:
        return self.options.partials and self.options.text_rules == AS_SAID


_Ended: TypeAlias = tuple[_Segment, asyncio.Task[SegmentWords | ChunkFailure] | None]


class Session:
    """Implements `LiveSession`; belongs to the event loop that it was made in.

    Args:
        context: of the session; all its work is queued under it.
        audio: format of the bytes.
        options: until `configure`.
        models: that it uses.
        limits: of sessions.
        observer: told of latencies.
        clock: in seconds, monotonic.

    Raises:
        UnsupportedAudioLayout: the rate is not supported.
    """

    def __init__(
        self,
        context: RequestContext,
        audio: AudioFormat,
        options: SessionOptions,
        models: SessionModels,
        limits: SessionLimits,
        observer: SessionObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context = context
        self._audio = audio
        self._options = options
        self._models = models
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._segmenter = Segmenter(audio, models.vad, options.detection, limits.max_segment_s)
        self._decoder = SegmentDecoder(context, models.recognize, models.label)
        self._max_step_bytes = num_bytes_of(audio, _MAX_STEP_MS)
        self._received_bytes = 0
        self._waiting_bytes = 0
        self._committed_ms = 0
        self._input: deque[_Audio | _Configure | _Command] = deque()
        self._arrivals: deque[tuple[int, float]] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._step = asyncio.Lock()
        self._events: asyncio.Queue[LiveEvent | BaseException | None] = asyncio.Queue()
        self._open: _Segment | None = None
        self._ended: asyncio.Queue[_Ended | None] = asyncio.Queue()
        self._unfinished: deque[_Segment] = deque()
        self._partial: asyncio.Task[None] | None = None
        self._next_step_ms = _STEP_MS + _STEP_PHASE_MS
        self._next_partial_ms = 0
        self._is_overdue = False
        self._not_before_s = 0.0
        self._is_ending = False
        self._last_error: Exception | None = None
        self._statistics = SessionStatistics()
        self._num_segments = 0
        self._tasks = [
            asyncio.create_task(self._guarded(self._take_input())),
            asyncio.create_task(self._guarded(self._finish_segments())),
        ]

    def push(self, data: bytes) -> None:
        if self._is_ending or not data:
            return
        if not self._room.is_set():
            raise TooMuchAudio(self._limits.max_lag_s)
        now = self._clock()
        self._received_bytes += len(data)
        self._waiting_bytes += len(data)
        if not self._arrivals or self._received_ms - self._arrivals[-1][0] >= _ARRIVAL_STEP_MS:
            self._arrivals.append((self._received_ms, now))
        last = self._input[-1] if self._input else None
        if isinstance(last, _Audio) and len(last.data) + len(data) <= self._max_step_bytes:
            last.data += data
        else:
            for start in range(0, len(data), self._max_step_bytes):
                part = bytearray(data[start : start + self._max_step_bytes])
                self._input.append(_Audio(part, now))
        self._measure_room()
        self._news.set()

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def configure(self, options: SessionOptions) -> None:
        self._enqueue(_Configure(options))

    def commit(self) -> None:
        audio_ms = self._received_ms - self._committed_ms
        if audio_ms < MIN_COMMIT_MS:
            raise NothingToCommit(audio_ms)
        self._committed_ms = self._received_ms
        self._enqueue(_Command(self._segmenter.commit, self._clock()))

    def clear(self) -> None:
        self._committed_ms = self._received_ms
        self._enqueue(_Command(self._segmenter.clear, self._clock()))

    def finish(self) -> None:
        if not self._is_ending:
            self._enqueue(_Command(self._segmenter.finish, self._clock(), is_last=True))
            self._is_ending = True

    def end_with(self, error: Exception) -> None:
        """Takes no further audio; raises the error after the texts of what has arrived.

        A session that ends anyway ends without it.
        """
        if not self._is_ending:
            self._last_error = error
            self.finish()

    def abort(self, error: Exception) -> None:
        """Takes no further audio and raises the error at once."""
        self._end_events(error)

    async def events(self) -> AsyncIterator[LiveEvent]:
        while (event := await self._events.get()) is not None:
            if isinstance(event, BaseException):
                raise event
            yield event

    def statistics(self) -> SessionStatistics:
        return replace(
            self._statistics,
            received_ms=self._received_ms,
            decided_ms=self._segmenter.end_ms,
            finished_ms=self._finished_ms,
            waiting_ms=self._waiting_input_ms + sum(self._ended_ms),
            is_speaking=self._open is not None,
        )

    async def close(self) -> None:
        self._is_ending = True
        tasks = [*self._tasks, *self._decodes()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._end_events(None)

    @property
    def _received_ms(self) -> int:
        return duration_ms_of(self._audio, self._received_bytes)

    @property
    def _waiting_input_ms(self) -> int:
        return duration_ms_of(self._audio, self._waiting_bytes)

    @property
    def _ended_ms(self) -> list[int]:
        """How long the segments are that have ended and have no text yet."""
        return [one.end_ms - one.start_ms for one in self._unfinished if one is not self._open]

    @property
    def _finished_ms(self) -> int:
        if self._unfinished:
            return self._unfinished[0].start_ms
        return min(self._segmenter.keep_from_ms, self._received_ms)

    def _decodes(self) -> list[asyncio.Task[None] | asyncio.Task[SegmentWords | ChunkFailure]]:
        decodes: list[asyncio.Task[None] | asyncio.Task[SegmentWords | ChunkFailure]] = []
        if self._partial is not None:
            decodes.append(self._partial)
        while not self._ended.empty():
            ended = self._ended.get_nowait()
            if ended is not None and ended[1] is not None:
                decodes.append(ended[1])
        return decodes

    def _enqueue(self, item: _Configure | _Command) -> None:
        if not self._is_ending:
            self._input.append(item)
            self._news.set()

    def _measure_room(self) -> None:
        """Opens or closes the door to audio, by what waits beside what is decoded now."""
        waiting_ms = self._waiting_input_ms + sum(self._ended_ms[1:])
        has_room = waiting_ms < self._limits.max_lag_s * 1000 and len(self._input) < _MAX_CALLS
        if has_room or self._is_ending:
            self._room.set()
        else:
            self._room.clear()

    async def _guarded(self, work: Awaitable[None]) -> None:
        """Ends the session if its own work fails."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._end_events(error)

    def _end_events(self, error: Exception | None) -> None:
        self._is_ending = True
        self._room.set()
        self._events.put_nowait(error)

    async def _take_input(self) -> None:
        """Applies what was pushed and called, in order."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._input and self._is_due(self._input[0]):
                item = self._input.popleft()
                if isinstance(item, _Configure):
                    await self._configure(item.options)
                elif isinstance(item, _Audio):
                    await self._detect(item)
                else:
                    await self._run(item.apply, item.arrived_s)
                    if item.is_last:
                        self._ended.put_nowait(None)
                        return

    def _is_due(self, item: _Audio | _Configure | _Command) -> bool:
        if not isinstance(item, _Audio) or len(self._input) > 1:
            return True
        return self._received_ms >= self._next_step_ms

    async def _configure(self, options: SessionOptions) -> None:
        now = self._clock()
        # What the change of the detection ends was spoken under the old options.
        await self._run(lambda: self._segmenter.configure(options.detection), now)
        self._options = options

    async def _detect(self, audio: _Audio) -> None:
        data = bytes(audio.data)
        await self._run(lambda: self._segmenter.push(data), audio.arrived_s)
        self._waiting_bytes -= len(data)
        taken_ms = duration_ms_of(self._audio, self._received_bytes - self._waiting_bytes)
        whole_ms = (taken_ms - _STEP_PHASE_MS) // _STEP_MS * _STEP_MS
        self._next_step_ms = whole_ms + _STEP_MS + _STEP_PHASE_MS
        self._measure_room()
        keep_from_ms = self._segmenter.keep_from_ms
        while self._arrivals and self._arrivals[0][0] < keep_from_ms:
            self._arrivals.popleft()
        self._decode_open()

    async def _run(self, step: Callable[[], list[Boundary]], arrived_s: float) -> None:
        """Runs a step of the segmenter; meanwhile no word is told that it could cut off."""
        async with self._step:
            found = await self._models.run(step, self._context)
            self._apply(found, arrived_s)

    def _apply(self, found: list[Boundary], arrived_s: float) -> None:
        for boundary in found:
            if isinstance(boundary, Opened):
                self._begin(boundary)
            else:
                self._end(boundary, arrived_s)

    def _begin(self, opened: Opened) -> None:
        segment = _Segment(
            self._num_segments, opened.start_ms, self._options, self._arrival_s(opened.start_ms)
        )
        self._num_segments += 1
        self._open = segment
        self._unfinished.append(segment)
        self._next_partial_ms = segment.start_ms + int(self._limits.partial_interval_s * 1000)
        self._is_overdue = False
        self._events.put_nowait(SpeechStarted(segment.number, segment.start_ms))

    def _arrival_s(self, time_ms: int) -> float:
        """Returns when the audio of a time arrived."""
        return next((at_s for end_ms, at_s in self._arrivals if end_ms > time_ms), self._clock())

    def _end(self, closed: Closed, arrived_s: float) -> None:
        segment = self._open
        if segment is None:
            raise RuntimeError("a segment ends that was not opened")
        self._open = None
        if self._partial is not None:
            self._partial.cancel()
        segment.end_ms, segment.ended_s = closed.end_ms, arrived_s
        segment.cleared = closed.cleared
        self._committed_ms = max(self._committed_ms, closed.end_ms)
        self._events.put_nowait(SpeechStopped(segment.number, closed.end_ms))
        decode: asyncio.Task[SegmentWords | ChunkFailure] | None = None
        if len(closed.pcm) and segment.poison is None:
            decode = asyncio.create_task(self._decode(segment, closed.pcm))
        self._ended.put_nowait((segment, decode))

    async def _decode(self, segment: _Segment, pcm: Pcm) -> SegmentWords | ChunkFailure:
        """Returns a segment's words, or why there are none, whatever the models raise."""
        try:
            return await self._decoder.decode(
                segment.number, segment.start_ms, pcm, segment.options
            )
        except ParaserveError as error:
            return ChunkFailure(error.code, str(error))
        except Exception as error:
            return ChunkFailure("recognizer_error", str(error) or type(error).__name__)

    def _decode_open(self) -> None:
        """Starts a decode of the open segment if one is due and nothing else is decoded."""
        segment = self._open
        if segment is None or not segment.has_partials or segment.poison is not None:
            return
        end_ms = self._segmenter.end_ms
        is_due = end_ms >= self._next_partial_ms
        if is_due:
            self._next_partial_ms = end_ms + int(self._limits.partial_interval_s * 1000)
        if not is_due and not self._is_overdue:
            return
        if self._is_behind:
            self._count(num_thinned=int(is_due))
            self._is_overdue = True
            return
        self._is_overdue = False
        self._next_partial_ms = end_ms + int(self._limits.partial_interval_s * 1000)
        self._partial = asyncio.create_task(
            self._decode_partial(segment, self._segmenter.open_audio(), end_ms)
        )

    @property
    def _is_behind(self) -> bool:
        return (
            (self._partial is not None and not self._partial.done())
            or len(self._unfinished) > 1
            or self._events.qsize() > _MAX_UNREAD_EVENTS
            or self._clock() < self._not_before_s
        )

    async def _decode_partial(self, segment: _Segment, pcm: Pcm, end_ms: int) -> None:
        began_s = self._clock()
        decoded = await self._decode(segment, pcm)
        now = self._clock()
        # At most half of the time: what ended segments need comes first.
        self._not_before_s = now + (now - began_s)
        self._count(num_partials=1)
        if isinstance(decoded, ChunkFailure):
            self._count(num_failed_partials=1)
            if decoded.code == POISON:
                segment.poison = decoded
            return
        async with self._step:
            is_first = not segment.text.text
            delta = segment.text.advance(decoded.words, self._stable_until_ms(segment, end_ms))
            self._segmenter.told_until_ms = segment.text.end_ms
            self._tell(segment, delta, is_first=is_first)

    def _stable_until_ms(self, segment: _Segment, audio_end_ms: int) -> int:
        max_s = self._limits.max_segment_s
        told_s = max(max_s - _CUT_SEARCH_S, max_s / 2)
        return min(audio_end_ms - _UNSTABLE_MS, segment.start_ms + int(told_s * 1000))

    def _tell(self, segment: _Segment, delta: str, *, is_first: bool) -> None:
        if not delta:
            return
        self._events.put_nowait(PartialText(segment.number, delta))
        if is_first:
            seconds = self._clock() - segment.arrived_s
            self._statistics = replace(self._statistics, first_partial_s=seconds)
            if self._observer is not None:
                self._observer.first_partial(seconds)

    async def _finish_segments(self) -> None:
        """Tells the texts of ended segments, in order; ends the events after the last one."""
        while (ended := await self._ended.get()) is not None:
            segment, decode = ended
            decoded: SegmentWords | ChunkFailure = segment.poison or SegmentWords()
            if decode is not None:
                decoded = await decode
            if isinstance(decoded, ChunkFailure):
                self._fail(segment, decoded)
            else:
                await self._finish_segment(segment, decoded)
            self._unfinished.popleft()
            self._count(num_segments=1)
            self._measure_room()
            self._decode_open()
        self._end_events(self._last_error)

    def _fail(self, segment: _Segment, failure: ChunkFailure) -> None:
        self._count(num_failed_segments=1)
        self._events.put_nowait(
            SegmentFailed(
                segment.number, segment.start_ms, segment.end_ms, failure.code, failure.message
            )
        )

    async def _finish_segment(self, segment: _Segment, decoded: SegmentWords) -> None:
        text = segment.text
        is_first = not text.text
        words = decoded.words
        if segment.options.text_rules != AS_SAID:
            words = await rewritten(words, segment.options.text_rules)
        if not segment.cleared:
            self._tell(segment, text.complete(words, segment.end_ms), is_first=is_first)
        self._events.put_nowait(
            FinalText(
                segment.number,
                segment.start_ms,
                segment.end_ms,
                sentences_of(text.tokens),
                text.text,
                decoded.language,
            )
        )
        seconds = self._clock() - segment.ended_s
        self._statistics = replace(self._statistics, final_s=seconds)
        if self._observer is not None:
            self._observer.final(seconds)

    def _count(
        self,
        *,
        num_segments: int = 0,
        num_partials: int = 0,
        num_thinned: int = 0,
        num_failed_partials: int = 0,
        num_failed_segments: int = 0,
    ) -> None:
        counted = self._statistics
        self._statistics = replace(
            counted,
            num_segments=counted.num_segments + num_segments,
            num_partials=counted.num_partials + num_partials,
            num_thinned=counted.num_thinned + num_thinned,
            num_failed_partials=counted.num_failed_partials + num_failed_partials,
            num_failed_segments=counted.num_failed_segments + num_failed_segments,
        )
