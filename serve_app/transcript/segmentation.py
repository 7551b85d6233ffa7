"""Turns a file's bytes into the chunks to recognize, block by block.

Channels that are recognized separately are decoded in one pass: the file is read and sent once,
damage is found once, and the chunks of all channels come in about the order of time, so that
their sentences can be merged without waiting for one channel's end. Each channel has a VAD
stream of its own and is cut as if it were alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from serve_app.audio import AudioDecoder, AudioLimits
from serve_app.audio.bytesource import AudioSource
from serve_app.core.errors import AudioError
from serve_app.core.ports import VadStream, VoiceActivityDetector
from serve_app.core.records import (
    AS_DEPLOYED,
    NO_OPTIONS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_MS,
    Chunk,
    DamagedRange,
    Pcm,
    RecognitionOptions,
    RecordingEnd,
    RequestContext,
    RequestCost,
    SpeechDetection,
    UtteranceSummary,
)
from serve_app.scheduling.fair_executor import FairExecutor
from serve_app.scheduling.micro_batcher import BatcherClosed, EngineStuck
from serve_app.transcript.chunking import ChunkAudio, FixedChunker, SegmentChunker


@dataclass(frozen=True, slots=True)
class SegmentationOptions:
    """How a recording is divided into chunks.

    Attributes:
        limits: of accepted recordings.
        max_segment_s: longest chunk in s.
        max_group_s: longest audio of a group of chunks that is sent together, in s.
        gather_s: audio to decode before gathered chunks are sent, in s; 0 sends at once.
        urgent_s: length of a recording's beginning, in s, that overtakes other recordings.
    """

    limits: AudioLimits
    max_segment_s: float
    max_group_s: float
    gather_s: float = 0.0
    urgent_s: float = 0.0


class Segmentation:
    """Decodes one recording and divides it into chunks, keeping only the audio still needed.

    Args:
        audio: the file: its bytes, its path, or open and seekable.
        vad: detects speech; None to recognize everything.
        options: how to divide the recording.
        recognition_options: of the request, which the chunks carry.
        detection: the request's changes to the VAD's settings.
        separate_channels: cut each channel for itself, instead of their mix.
    """

    def __init__(
        self,
        audio: AudioSource,
        vad: VoiceActivityDetector | None,
        options: SegmentationOptions,
        recognition_options: RecognitionOptions = NO_OPTIONS,
        detection: SpeechDetection = AS_DEPLOYED,
        *,
        separate_channels: bool = False,
    ) -> None:
        self._audio = audio
        self._detection = detection
        self._vad = vad
        self._options = options
        self._recognition_options = recognition_options
        self._separate_channels = separate_channels
        self._num_samples = 0
        self._num_channels = 1
        self._declared_s: float | None = None
        self._decoder: AudioDecoder | None = None
        self._busy_s = 0.0
        self._damage: tuple[DamagedRange, ...] = ()
        self._notices: tuple[str, ...] = ()

    @property
    def damage(self) -> tuple[DamagedRange, ...]:
        """The ranges that could not be decoded, in order of time; known after all steps."""
        return self._damage

    @property
    def notices(self) -> tuple[str, ...]:
        """Other notices for the caller about the file; known after all steps."""
        return self._notices

    @property
    def declared_s(self) -> float | None:
        """Length that the file's header declares; None without one or before it is read."""
        return self._declared_s

    @property
    def num_channels(self) -> int:
        """Channels that are cut, each for itself; 1 for their mix or before it is known."""
        return self._num_channels

    @property
    def busy_s(self) -> float:
        """Time spent on decoding and segmentation so far, in s."""
        return self._busy_s

    @property
    def duration_ms(self) -> int:
        """Length of the decoded audio so far."""
        return self._num_samples // SAMPLES_PER_MS

    @property
    def is_urgent(self) -> bool:
        """Whether the next step is urgent: it decodes the beginning of the recording.

        A recording that takes unusually much work to decode is never urgent.
        """
        begins = self._num_samples < self._options.urgent_s * SAMPLE_RATE_HZ
        return begins and (self._decoder is None or self._decoder.work_is_usual)

    def end(
        self, utterances: Iterable[UtteranceSummary], cost: RequestCost | None = None
    ) -> RecordingEnd:
        """Returns the end of the recording, once all steps are done.

        Args:
            utterances: of the recording, in order of their indices.
            cost: of the request so far; None if it is not measured.
        """
        return RecordingEnd(
            self.duration_ms,
            tuple(sorted(utterances, key=lambda one: one.start_ms)),
            RequestCost() if cost is None else cost,
            self._damage,
            self._notices,
            num_channels=self._num_channels,
        )

    def steps(self) -> Generator[list[ChunkAudio]]:
        """Yields, after each step of decoding, the chunks that it completed.

        A step is a block of audio, or a slice of CPU time without audio.

        Raises:
            AudioError: the file is not usable audio; earlier chunks have been yielded.
        """
        with AudioDecoder(
            self._audio,
            self._options.limits,
            separate_channels=self._separate_channels,
            open_at_once=False,
        ) as decoder:
            self._decoder = decoder
            for _ in decoder.opening():
                yield []
            self._declared_s = decoder.info.declared_s
            self._num_channels = decoder.num_channels
            cutters = [self._new_cutter() for _ in range(self._num_channels)]
            for block in decoder.steps():
                self._num_samples += block.shape[1]
                if block.shape[1]:
                    channels = zip(cutters, block, strict=True)
                    yield self._merged(cutters, [cutter.push(pcm) for cutter, pcm in channels])
                else:
                    yield []
            yield self._merged(cutters, [cutter.finish() for cutter in cutters])
            self._damage, self._notices = decoder.damage, decoder.notices

    def _new_cutter(self) -> _Cutter:
        if self._vad is None:
            return _FixedCutter(self._options.max_segment_s)
        return _SpeechCutter(self._options.max_segment_s, self._vad.open(self._detection))

    def _merged(
        self, cutters: Sequence[_Cutter], found: Sequence[list[ChunkAudio]]
    ) -> list[ChunkAudio]:
        """Returns the chunks of all channels in order of their start."""
        if not self._separate_channels:
            return found[0]
        chunks = [
            replace(chunk, channel=channel)
            for channel, of_channel in enumerate(found)
            for chunk in of_channel
        ]
        chunks.sort(key=lambda chunk: chunk.start_ms)
        settled_ms = min(cutter.settled_ms for cutter in cutters)
        for number in reversed(range(len(chunks))):
            chunks[number] = replace(chunks[number], settled_ms=settled_ms)
            settled_ms = min(settled_ms, chunks[number].start_ms)
        return chunks

    def groups(self, context: RequestContext) -> Generator[list[Chunk]]:
        """Yields the groups of chunks, and an empty one after each step without any.

        The first chunks are sent at once, so that their text appears early; later ones are
        gathered, since a call costs as much as a short chunk. At an empty group the caller can
        report progress and yield to other recordings.

        Raises:
            AudioError: the file is not usable audio; earlier chunks have been yielded.
        """
        gather_samples = int(self._options.gather_s * SAMPLE_RATE_HZ)
        index = 0
        gathered: list[Chunk] = []
        hand_out_at = 0
        try:
            for chunks in self.steps():
                gathered += (
                    Chunk(
                        context,
                        index + offset,
                        chunk.start_ms,
                        chunk.pcm,
                        self._recognition_options,
                        chunk.channel,
                        chunk.settled_ms,
                    )
                    for offset, chunk in enumerate(chunks)
                )
                index += len(chunks)
                if gathered and self._num_samples >= hand_out_at:
                    hand_out_at = self._num_samples + gather_samples
                    ready, gathered = gathered, []
                    yield from grouped(ready, self._options.max_group_s)
                else:
                    yield []
        except AudioError:
            yield from grouped(gathered, self._options.max_group_s)
            raise
        yield from grouped(gathered, self._options.max_group_s)

    def _step(self, groups: Iterator[list[Chunk]]) -> list[Chunk] | None:
        began = time.monotonic()
        try:
            return next(groups, None)
        finally:
            self._busy_s += time.monotonic() - began

    async def groups_on(
        self, thread: FairExecutor[list[Chunk] | None], context: RequestContext
    ) -> AsyncGenerator[list[Chunk]]:
        """Yields the groups that are not empty; runs the work on `thread`.

        Between two blocks the thread can work on other recordings.
        """
        groups = self.groups(context)
        try:
            while True:
                urgent = self.is_urgent
                group = await thread.run(lambda: self._step(groups), context, urgent=urgent)
                if group is None:
                    break
                if group:
                    yield group
        finally:
            # On the thread, since a step of a canceled recording may still be running.
            patient = replace(context, deadline=None)
            closing = thread.run(groups.close, patient, urgent=self.is_urgent)
            with contextlib.suppress(BatcherClosed, EngineStuck):
                await asyncio.shield(closing)


class _Cutter(Protocol):
    """Cuts one channel."""

    @property
    def settled_ms(self) -> int:
        """No later chunk starts before this."""
        ...

    def push(self, pcm: Pcm) -> list[ChunkAudio]: ...

    def finish(self) -> list[ChunkAudio]: ...


class _SpeechCutter:
    """Cuts where the VAD finds speech."""

    def __init__(self, max_segment_s: float, stream: VadStream) -> None:
        self._chunker = SegmentChunker(max_segment_s)
        self._stream = stream
        self._num_samples = 0

    @property
    def settled_ms(self) -> int:
        return self._chunker.settled_ms

    def push(self, pcm: Pcm) -> list[ChunkAudio]:
        self._num_samples += len(pcm)
        self._chunker.append(pcm)
        closed = self._stream.push(pcm)
        return self._chunker.cut(closed, self._stream.open_since_ms, self._stream.keep_from_ms)

    def finish(self) -> list[ChunkAudio]:
        duration_ms = self._num_samples // SAMPLES_PER_MS
        return self._chunker.cut(self._stream.finish(), None, duration_ms)


class _FixedCutter:
    """Cuts everything."""

    def __init__(self, max_segment_s: float) -> None:
        self._chunker = FixedChunker(max_segment_s)

    @property
    def settled_ms(self) -> int:
        return self._chunker.settled_ms

    def push(self, pcm: Pcm) -> list[ChunkAudio]:
        self._chunker.append(pcm)
        return self._chunker.cut()

    def finish(self) -> list[ChunkAudio]:
        return self._chunker.finish()


class Timed(Protocol):
    """Anything with a length in s, such as a `Chunk` or a simulated one."""

    @property
    def duration_s(self) -> float: ...


TimedT = TypeVar("TimedT", bound=Timed)


def grouped(chunks: list[TimedT], max_group_s: float) -> list[list[TimedT]]:
    """Divides chunks, in order, into groups of at most max_group_s of audio.

    A longer chunk is a group of its own.
    """
    groups: list[list[TimedT]] = []
    group_s = 0.0
    for chunk in chunks:
        if groups and group_s + chunk.duration_s <= max_group_s:
            groups[-1].append(chunk)
            group_s += chunk.duration_s
        else:
            groups.append([chunk])
            group_s = chunk.duration_s
    return groups
