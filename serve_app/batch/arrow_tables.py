"""The Arrow tables that travel between the stages of a batch job.

    plan      one row per recording to process
    audio     one row per utterance, and one where a recording ends
    words     the same rows, words instead of samples

A recording is named by its number within the run, the same in every stage. Samples are a
binary column, which Arrow passes on without a copy. `Assembler` puts the utterances of each
recording together in whatever order they arrive; it holds words only, for as many recordings
as the segmenters may have open.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
from serve_app.transcript.fanout import to_recording_time

RecordT = TypeVar("RecordT")

KEY = "batch"
"""Name under which a job's work lays claim to models that it shares."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A recording for a segmenter.

    Attributes:
        number: of the recording in this run.
        id: of the item, for logs.
        uri: where it is.
        use_vad: find the speech, or cut everything.
        language: of the item, for the recognizer; None if it names none.
    """

    number: int
    id: str
    uri: str
    use_vad: bool
    language: str | None = None


@dataclass(frozen=True, slots=True)
class AudioEnd:
    """The last that a segmenter tells of a recording.

    Attributes:
        num_chunks: rows that came before this one.
        duration_ms: of the recording, as far as it could be decoded.
        segment_s: compute that reading, decoding and cutting took.
        began_unix_s: when it was opened.
        error: kind and reason, if the recording is no good.
        permanent: trying again is of no use.
        attempts: how often reading was tried.
        damage: what could not be decoded, in order of time.
        notices: what else is to be known of the file, in plain English.
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


@dataclass(frozen=True, slots=True)
class RecognizedWords:
    """A row of words.

    Attributes:
        number: of the recording.
        utterance: None in the row that ends a recording.
        recognize_s: its part of the batch's time.
        end: None in the others.
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
        }
    )


def read_plan(table: pa.Table) -> list[Planned]:
    return [Planned(**row) for row in table.to_pylist()]


class AudioRows:
    """Rows of audio that are not yet handed on."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, str | None, bytes | None]] = []
        self._pcm: list[Pcm] = []
        self.num_bytes = 0

    def add_chunk(
        self, number: int, index: int, start_ms: int, pcm: Pcm, language: str | None = None
    ) -> None:
        self._rows.append((number, index, start_ms, language, None))
        self._pcm.append(pcm)
        self.num_bytes += pcm.nbytes

    def add_end(self, number: int, end: AudioEnd) -> None:
        self._rows.append((number, end.num_chunks, end.duration_ms, None, pickle.dumps(end)))
        self._pcm.append(np.empty(0, np.int16))

    def take(self) -> pa.Table:
        """Returns the rows as a table, and has none left."""
        rows, pcm = self._rows, self._pcm
        self._rows, self._pcm, self.num_bytes = [], [], 0
        columns = zip(*rows, strict=True) if rows else [()] * 5
        numbers, indices, starts, languages, ends = columns
        return pa.table(
            [
                pa.array(numbers, pa.int32()),
                pa.array(indices, pa.int32()),
                pa.array(starts, pa.int64()),
                pa.array(languages, pa.string()),
                _binary(pcm),
                pa.array(ends, pa.binary()),
            ],
            schema=AUDIO_SCHEMA,
        )


def _binary(pcm: Sequence[Pcm]) -> pa.Array:
    """Returns the samples as one column of bytes; they are copied once, into its buffer."""
    lengths = [one.nbytes for one in pcm]
    offsets = np.zeros(len(pcm) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    samples = np.concatenate(pcm) if pcm else np.empty(0, np.int16)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(samples)]
    return pa.Array.from_buffers(pa.large_binary(), len(pcm), buffers)


def read_audio(table: pa.Table) -> tuple[list[tuple[int, Chunk]], list[tuple[int, AudioEnd]]]:
    """Returns the chunks, whose samples are the table's own, and the ends."""
    chunks: list[tuple[int, Chunk]] = []
    ends: list[tuple[int, AudioEnd]] = []
    names = ("number", "index", "start_ms", "language", "end")
    columns = (table.column(name).to_pylist() for name in names)
    samples = _samples(table.column("pcm"))
    for number, index, start_ms, language, end, pcm in zip(*columns, samples, strict=True):
        if end is None:
            context = RequestContext(str(number), KEY)
            recognition_options = (
                NO_OPTIONS if language is None else RecognitionOptions(language=language)
            )
            chunks.append((number, Chunk(context, index, start_ms, pcm, recognition_options)))
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
    heard: Sequence[tuple[int, Chunk, Recognition | ChunkFailure, float]],
    ends: Sequence[tuple[int, AudioEnd]],
) -> pa.Table:
    """Returns the rows that tell what was heard in chunks, and which recordings ended."""
    utterances = [pickle.dumps(to_recording_time(chunk, result)) for _, chunk, result, _ in heard]
    return pa.table(
        [
            pa.array([one[0] for one in heard] + [one[0] for one in ends], pa.int32()),
            pa.array([*utterances, *[None] * len(ends)], pa.binary()),
            pa.array([one[3] for one in heard] + [0.0] * len(ends), pa.float64()),
            pa.array([*[None] * len(heard), *(pickle.dumps(end) for _, end in ends)], pa.binary()),
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
    """All that was heard in a recording.

    Attributes:
        number: of the recording in this run.
        utterances: in order of time.
        recognize_s: its part of the recognizer's batches.
        end: how the segmenter came to its end.
    """

    number: int
    utterances: tuple[Utterance, ...]
    recognize_s: float
    end: AudioEnd

    @property
    def error(self) -> tuple[str, str] | None:
        """Kind and reason, if there can be no transcript."""
        if self.end.error is not None:
            return self.end.error
        failed = [one for one in self.utterances if one.status == "failed"]
        if not failed:
            return None
        first = failed[0]
        kind, _, message = (first.error or "engine_error: ").partition(": ")
        where = f"{first.start_ms / 1000:.1f}-{first.end_ms / 1000:.1f} s"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return kind, f"what was said at {where} could not be recognized: {message}{more}"


@dataclass(slots=True)
class _Open:
    utterances: dict[int, Utterance] = field(default_factory=dict)
    recognize_s: float = 0.0
    end: AudioEnd | None = None


class Assembler:
    """Collects rows of words until recordings are complete."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self.audio_ms = 0
        """Of all utterances so far."""

    @property
    def num_open(self) -> int:
        return len(self._open)

    @property
    def open_numbers(self) -> list[int]:
        """Recordings that are not complete yet."""
        return sorted(self._open)

    def add(self, rows: Iterable[RecognizedWords]) -> list[RecognizedRecording]:
        """Returns the recordings that are complete with these rows."""
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
