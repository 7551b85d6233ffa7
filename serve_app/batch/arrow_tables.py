"""The Arrow tables between the stages of a batch job.

    plan      a row per recording
    audio     a row per chunk, and one at the end of each recording
    words     the same rows with words instead of samples

A recording is identified by its number in this run. Samples are a binary column, which Arrow
passes on without a copy. `Assembler` joins the rows of words of each recording, in any order;
it holds only words, and the embeddings of voices if they are wanted, of recordings that the
segmenters have open or that are in transit.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pyarrow as pa

from serve_app.core.records import (
    NO_OPTIONS,
    Chunk,
    ChunkFailure,
    DamagedRange,
    Pcm,
    Recognition,
    RecognitionOptions,
    RequestContext,
    Utterance,
)
from serve_app.core.speakers import SpeakerWindows
from serve_app.transcript.chunking import ChunkAudio
from serve_app.transcript.fanout import to_recording_time

RecordT = TypeVar("RecordT")

KEY = "batch"
"""Key of a job's calls to models that it shares with the service."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A recording that is assigned to a segmenter.

    Attributes:
        number: of the recording in this run.
        id: of the item, for logs.
        uri: where it is.
        use_vad: detect speech; otherwise all audio is cut into chunks.
        language: of the item, for the recognizer; None for the default.
        separate_channels: recognize each channel for itself, instead of their mix.
    """

    number: int
    id: str
    uri: str
    use_vad: bool
    language: str | None = None
    separate_channels: bool = False


@dataclass(frozen=True, slots=True)
class AudioEnd:
    """The end of a recording, as its segmenter reports it.

    Attributes:
        num_chunks: number of chunks of the recording.
        duration_ms: of the recording, as far as it could be decoded.
        segment_s: CPU time of reading, decoding and cutting.
        began_unix_s: time at which it was opened.
        error: kind and reason, if the recording failed.
        permanent: a retry would fail again.
        attempts: number of attempts to read it.
        damage: ranges that could not be decoded, in order of time.
        notices: further remarks on the file, in English.
        num_channels: channels that were cut, each for itself; 1 for their mix.
    """

    num_chunks: int
    duration_ms: int
    segment_s: float
    began_unix_s: float
    error: tuple[str, str] | None = None
    permanent: bool = False
    attempts: int = 1
    damage: tuple[DamagedRange, ...] = ()
    notices: tuple[str, ...] = ()
    num_channels: int = 1


@dataclass(frozen=True, slots=True)
class RecognizedWords:
    """A row of words.

    Attributes:
        number: of the recording.
        utterance: None in the row that ends a recording.
        recognize_s: its share of the batch time.
        end: None in all other rows.
    """

    number: int
    utterance: Utterance | None
    recognize_s: float
    end: AudioEnd | None


AUDIO_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("index", pa.int32()),
        ("start_ms", pa.int64()),
        ("language", pa.string()),
        ("channel", pa.int32()),
        ("settled_ms", pa.int64()),
        ("pcm", pa.large_binary()),
        ("end", pa.binary()),
    ]
)
WORDS_SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("utterance", pa.binary()),
        ("recognize_s", pa.float64()),
        ("end", pa.binary()),
    ]
)


def plan_table(planned: Sequence[Planned]) -> pa.Table:
    return pa.table(
        {
            "number": pa.array([one.number for one in planned], pa.int32()),
            "id": [one.id for one in planned],
            "uri": [one.uri for one in planned],
            "use_vad": [one.use_vad for one in planned],
            "language": pa.array([one.language for one in planned], pa.string()),
            "separate_channels": [one.separate_channels for one in planned],
        }
    )


def read_plan(table: pa.Table) -> list[Planned]:
    return [Planned(**row) for row in table.to_pylist()]


@dataclass(frozen=True, slots=True)
class _AudioRow:
    """A row of audio without its samples."""

    number: int
    index: int
    start_ms: int
    language: str | None = None
    channel: int | None = None
    settled_ms: int = 0
    end: bytes | None = None


class AudioRows:
    """Rows of audio that are not yet in a table."""

    def __init__(self) -> None:
        self._rows: list[_AudioRow] = []
        self._pcm: list[Pcm] = []
        self.num_bytes = 0

    def add_chunk(
        self, number: int, index: int, cut: ChunkAudio, language: str | None = None
    ) -> None:
        row = _AudioRow(number, index, cut.start_ms, language, cut.channel, cut.settled_ms)
        self._rows.append(row)
        self._pcm.append(cut.pcm)
        self.num_bytes += cut.pcm.nbytes

    def add_end(self, number: int, end: AudioEnd) -> None:
        row = _AudioRow(number, end.num_chunks, end.duration_ms, end=pickle.dumps(end))
        self._rows.append(row)
        self._pcm.append(np.empty(0, np.int16))

    def take(self) -> pa.Table:
        """Returns the rows as a table and removes them."""
        rows, pcm = self._rows, self._pcm
        self._rows, self._pcm, self.num_bytes = [], [], 0
        columns = {
            name: pa.array([getattr(row, name) for row in rows], AUDIO_SCHEMA.field(name).type)
            for name in AUDIO_SCHEMA.names
            if name != "pcm"
        }
        return pa.table({**columns, "pcm": _binary(pcm)}, schema=AUDIO_SCHEMA)


def _binary(pcm: Sequence[Pcm]) -> pa.Array:
    """Returns the samples as a column of bytes, with a single copy into its buffer."""
    lengths = [one.nbytes for one in pcm]
    offsets = np.zeros(len(pcm) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    samples = np.concatenate(pcm) if pcm else np.empty(0, np.int16)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(samples)]
    return pa.Array.from_buffers(pa.large_binary(), len(pcm), buffers)


def read_audio(table: pa.Table) -> tuple[list[tuple[int, Chunk]], list[tuple[int, AudioEnd]]]:
    """Returns the chunks, whose samples share the table's memory, and the ends."""
    chunks: list[tuple[int, Chunk]] = []
    ends: list[tuple[int, AudioEnd]] = []
    names = ("number", "index", "start_ms", "language", "channel", "settled_ms", "end")
    columns = (table.column(name).to_pylist() for name in names)
    samples = _samples(table.column("pcm"))
    rows = zip(*columns, samples, strict=True)
    for number, index, start_ms, language, channel, settled_ms, end, pcm in rows:
        if end is None:
            context = RequestContext(str(number), KEY)
            recognition_options = (
                NO_OPTIONS if language is None else RecognitionOptions(language=language)
            )
            chunk = Chunk(context, index, start_ms, pcm, recognition_options, channel, settled_ms)
            chunks.append((number, chunk))
        else:
            ends.append((number, _unpickled(end, AudioEnd)))
    return chunks, ends


def _samples(column: pa.ChunkedArray) -> Iterator[Pcm]:
    for array in column.chunks:
        _, offsets_buffer, data = array.buffers()
        first, last = array.offset, array.offset + len(array) + 1
        offsets = np.frombuffer(offsets_buffer, np.int64)[first:last] // 2
        samples = np.frombuffer(data or b"", np.int16)
        for begin, end in pairwise(offsets):
            yield samples[begin:end]


def words_table(
    recognized: Sequence[tuple[int, Chunk, Recognition | ChunkFailure, float]],
    ends: Sequence[tuple[int, AudioEnd]],
    voices: Sequence[SpeakerWindows | None] = (),
) -> pa.Table:
    """Returns a row per recognized chunk and a row per ended recording.

    Args:
        recognized: recording, chunk, result and compute time in s of each.
        ends: of recordings.
        voices: of the chunks; empty without speaker labels.
    """
    utterances = [
        pickle.dumps(replace(to_recording_time(chunk, result), voices=windows))
        for (_, chunk, result, _), windows in zip(
            recognized, voices or [None] * len(recognized), strict=True
        )
    ]
    return pa.table(
        [
            pa.array([one[0] for one in recognized] + [one[0] for one in ends], pa.int32()),
            pa.array([*utterances, *[None] * len(ends)], pa.binary()),
            pa.array([one[3] for one in recognized] + [0.0] * len(ends), pa.float64()),
            pa.array(
                [*[None] * len(recognized), *(pickle.dumps(end) for _, end in ends)], pa.binary()
            ),
        ],
        schema=WORDS_SCHEMA,
    )


def read_words(table: pa.Table) -> Iterator[RecognizedWords]:
    columns = (
        table.column(name).to_pylist() for name in ("number", "utterance", "recognize_s", "end")
    )
    for number, utterance, recognize_s, end in zip(*columns, strict=True):
        yield RecognizedWords(
            number,
            None if utterance is None else _unpickled(utterance, Utterance),
            recognize_s,
            None if end is None else _unpickled(end, AudioEnd),
        )


def _unpickled(data: bytes, kind: type[RecordT]) -> RecordT:
    record = pickle.loads(data)  # noqa: S301 - written by another actor of this job
    if not isinstance(record, kind):
        raise TypeError(f"a row holds a {type(record).__name__}, not a {kind.__name__}")
    return record


@dataclass(frozen=True, slots=True)
class RecognizedRecording:
    """All utterances of a recording.

    Attributes:
        number: of the recording in this run.
        utterances: in order of their indices.
        recognize_s: its share of the recognizer's batches.
        end: as reported by the segmenter.
    """

    number: int
    utterances: tuple[Utterance, ...]
    recognize_s: float
    end: AudioEnd

    @property
    def error(self) -> tuple[str, str] | None:
        """Kind and reason, if the recording has no transcript."""
        if self.end.error is not None:
            return self.end.error
        failed = [one for one in self.utterances if one.status == "failed"]
        if not failed:
            return None
        first = failed[0]
        kind, _, message = (first.error or "engine_error: ").partition(": ")
        where = f"{first.start_ms / 1000:.1f}-{first.end_ms / 1000:.1f} s"
        if first.channel is not None:
            where += f" of channel {first.channel}"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return kind, f"the speech at {where} could not be recognized: {message}{more}"


@dataclass(slots=True)
class _Open:
    utterances: dict[int, Utterance] = field(default_factory=dict)
    recognize_s: float = 0.0
    end: AudioEnd | None = None


class Assembler:
    """Collects the rows of words of each recording until it is complete."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self.audio_ms = 0
        """Length of all utterances so far."""

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def open_numbers(self) -> list[int]:
        """Numbers of the recordings that are not complete yet."""
        return sorted(self._open)

    def add(self, rows: Iterable[RecognizedWords]) -> list[RecognizedRecording]:
        """Returns the recordings that these rows complete."""
        complete: list[RecognizedRecording] = []
        for row in rows:
            recording = self._open.setdefault(row.number, _Open())
            recording.recognize_s += row.recognize_s
            if row.utterance is not None:
                recording.utterances[row.utterance.index] = row.utterance
                self.audio_ms += row.utterance.end_ms - row.utterance.start_ms
            if row.end is not None:
                recording.end = row.end
            end = recording.end
            if end is not None and len(recording.utterances) == end.num_chunks:
                del self._open[row.number]
                utterances = tuple(recording.utterances[i] for i in range(end.num_chunks))
                complete.append(
                    RecognizedRecording(row.number, utterances, recording.recognize_s, end)
                )
        return complete
