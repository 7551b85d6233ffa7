"""Simulated recordings: the chunks that each decoded block completes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from serve_app.core.speakers import STEP_MS, WINDOW_MS
from serve_app.transcript.segmentation import grouped


@dataclass(frozen=True, slots=True)
class Group:
    """Chunks that travel in one call.

    Attributes:
        frames: encoder frames of each chunk.
        total_frames: their sum.
        audio_s: their length.
    """

    frames: tuple[int, ...]
    total_frames: int
    audio_s: float


@dataclass(frozen=True, slots=True)
class DecodedBlock:
    """The result of decoding one block of a recording.

    Attributes:
        audio_s: length of the block.
        groups: groups of chunks that it completed.
    """

    audio_s: float
    groups: tuple[Group, ...]


Recording: TypeAlias = Sequence[DecodedBlock]


class Speech(Protocol):
    """Source of recordings by length."""

    def recording(self, audio_s: float) -> Recording: ...


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """Statistics of speech, and limits of the segmenter.

    Attributes:
        block_s: length of a decoded block.
        max_group_s: longest group.
        max_chunk_s: longest chunk.
        frame_s: audio in an encoder frame.
        speech_share: fraction of the audio that is speech.
        mean_chunk_s: mean length of an utterance.
        spread: standard deviation of the logarithm of the length.
        period_s: after this much audio the pattern repeats.
    """

    block_s: float = 20.0
    max_group_s: float = 30.0
    max_chunk_s: float = 30.0
    frame_s: float = 0.06
    speech_share: float = 0.85
    mean_chunk_s: float = 5.0
    spread: float = 0.7
    period_s: float = 7200.0


def group_of(chunks_s: Sequence[float], frame_s: float) -> Group:
    frames = tuple(max(1, round(chunk_s / frame_s)) for chunk_s in chunks_s)
    return Group(frames, sum(frames), float(sum(chunks_s)))


@dataclass(frozen=True, slots=True)
class _DrawnChunk:
    duration_s: float


def _groups_of(chunks_s: Sequence[float], options: SpeechOptions) -> tuple[Group, ...]:
    """Divides chunks into groups with the segmenter's own function."""
    chunks = [_DrawnChunk(chunk_s) for chunk_s in chunks_s]
    return tuple(
        group_of([chunk.duration_s for chunk in group], options.frame_s)
        for group in grouped(chunks, options.max_group_s)
    )


def windows_of(group: Group, frame_s: float) -> Group:
    """Returns the windows that a group's speech is embedded in, one item per chunk."""
    windows = tuple(num_windows(frames * frame_s) for frames in group.frames)
    return Group(windows, sum(windows), group.audio_s)


def num_windows(speech_s: float) -> int:
    """Returns the windows of a piece of speech, as `core.speakers.speaker_windows` does."""
    return max(1, 1 + math.ceil((speech_s * 1000 - WINDOW_MS) / STEP_MS - 1e-6))


class DrawnSpeech:
    """Utterances of lognormal length with pauses between them, drawn once.

    Every recording is a part of one long pattern, starting at a random block, so a day of
    recordings takes no more memory than one.

    Args:
        options: of the speech.
        seed: of the random numbers.
    """

    def __init__(self, options: SpeechOptions, seed: int) -> None:
        self._options = options
        self._random = random.Random(seed)  # noqa: S311  # a simulation, not a secret
        self._blocks = tuple(self._draw())

    @property
    def mean_chunks_per_group(self) -> float:
        groups = [group for block in self._blocks for group in block.groups]
        return sum(len(group.frames) for group in groups) / max(1, len(groups))

    def recording(self, audio_s: float) -> Recording:
        num_whole, rest_s = divmod(audio_s, self._options.block_s)
        whole = int(num_whole)
        first = self._random.randrange(len(self._blocks))
        blocks = [self._blocks[(first + index) % len(self._blocks)] for index in range(whole)]
        if rest_s > 1e-6 or not blocks:
            blocks.append(self._short(rest_s))
        return blocks

    def _short(self, audio_s: float) -> DecodedBlock:
        """Returns a block for the end of a recording, or for all of a short one."""
        left_s = audio_s * self._options.speech_share
        chunks_s: list[float] = []
        while left_s > 0.3:
            chunk_s = min(left_s, self._chunk_s())
            chunks_s.append(chunk_s)
            left_s -= chunk_s
        return DecodedBlock(audio_s, _groups_of(chunks_s, self._options))

    def _chunk_s(self) -> float:
        spread = self._options.spread
        middle = math.log(self._options.mean_chunk_s) - spread * spread / 2
        chunk_s = self._random.lognormvariate(middle, spread)
        return min(max(chunk_s, 0.3), self._options.max_chunk_s)

    def _draw(self) -> Iterator[DecodedBlock]:
        options = self._options
        num_blocks = max(1, round(options.period_s / options.block_s))
        ends: list[list[float]] = [[] for _ in range(num_blocks)]
        now_s = 0.0
        pauses_per_speech = 1.0 / options.speech_share - 1.0
        while True:
            chunk_s = self._chunk_s()
            now_s += chunk_s
            index = int(now_s / options.block_s)
            if index >= num_blocks:
                break
            ends[index].append(chunk_s)
            now_s += self._random.expovariate(1.0) * pauses_per_speech * options.mean_chunk_s
        for chunks_s in ends:
            yield DecodedBlock(options.block_s, _groups_of(chunks_s, options))


class MeasuredSpeech:
    """Recordings that were cut in advance, by length.

    Args:
        recordings: the recording for each length in s.
    """

    def __init__(self, recordings: Mapping[float, Recording]) -> None:
        self._recordings = recordings

    def recording(self, audio_s: float) -> Recording:
        return self._recordings[audio_s]


class SingleChunks:
    """Every recording is one chunk of its own length, as in queueing theory.

    Args:
        frame_s: audio in an encoder frame.
    """

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s

    def recording(self, audio_s: float) -> Recording:
        return (DecodedBlock(audio_s, (group_of([audio_s], self._frame_s),)),)
