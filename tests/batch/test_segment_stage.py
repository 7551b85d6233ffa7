from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from serve_app.audio import AudioLimits
from serve_app.batch.arrow_tables import AudioEnd, Planned, read_audio
from serve_app.batch.remote_reader import ReadOptions
from serve_app.batch.segment_stage import RecordingSegmenter
from serve_app.core.records import Chunk
from serve_app.transcript.segmentation import SegmentationOptions

OPTIONS = SegmentationOptions(AudioLimits(block_s=4.0), max_segment_s=10.0, max_group_s=30.0)


@pytest.fixture
def segmenter() -> RecordingSegmenter:
    return RecordingSegmenter(None, OPTIONS, ReadOptions(64 * 1024, 2))


def tone(path: Path, length_s: float) -> str:
    samples = np.random.default_rng(1).integers(-3000, 3000, int(length_s * 16000))
    soundfile.write(path, samples.astype(np.int16), 16000)
    return str(path)


def read(tables: list[pa.Table]) -> tuple[list[tuple[int, Chunk]], dict[int, AudioEnd]]:
    chunks: list[tuple[int, Chunk]] = []
    ends: dict[int, AudioEnd] = {}
    for table in tables:
        some, ended = read_audio(table)
        chunks += some
        ends |= dict(ended)
    return chunks, ends


def test_rows_of_a_recording_are_all_of_its_audio_in_order(
    segmenter: RecordingSegmenter, tmp_path: Path
) -> None:
    uri = tone(tmp_path / "a.wav", 61.0)
    tables = list(segmenter.tables([Planned(5, "a", uri, True)]))
    assert len(tables) > 1
    chunks, ends = read(tables)
    assert [chunk.index for _, chunk in chunks] == list(range(ends[5].num_chunks))
    pcm = np.concatenate([chunk.pcm for _, chunk in chunks])
    expected, _ = soundfile.read(uri, dtype="int16")
    assert np.array_equal(pcm, expected)
    assert (ends[5].duration_ms, ends[5].error) == (61_000, None)


def test_rows_are_the_same_each_time(segmenter: RecordingSegmenter, tmp_path: Path) -> None:
    planned = [Planned(i, str(i), tone(tmp_path / f"{i}.wav", 5.0 + i), True) for i in range(3)]

    def shape() -> list[tuple[int, int]]:
        tables = segmenter.tables(planned)
        return [(table.num_rows, table.column("pcm").nbytes) for table in tables]

    assert shape() == shape()


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "empty_file"), (b"no audio at all" * 100, "unknown_audio_format")],
)
def test_bad_file_is_a_row_and_its_neighbors_are_done(
    segmenter: RecordingSegmenter, tmp_path: Path, content: bytes, kind: str
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(content)
    good = tone(tmp_path / "good.wav", 3.0)
    _, ends = read(
        list(segmenter.tables([Planned(0, "bad", str(bad), True), Planned(1, "good", good, True)]))
    )
    assert ends[0].error is not None
    assert ends[0].error[0] == kind
    assert ends[0].permanent
    assert ends[1].error is None


def test_truncated_file_is_decoded_up_to_its_end_and_the_rest_reported(
    segmenter: RecordingSegmenter, tmp_path: Path
) -> None:
    whole = Path(tone(tmp_path / "whole.flac", 30.0)).read_bytes()
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole[: len(whole) // 2])
    chunks, ends = read(list(segmenter.tables([Planned(0, "cut", str(cut), True)])))
    assert len(chunks) == ends[0].num_chunks
    assert ends[0].error is None
    assert ends[0].damage[-1].end_ms == 30_000


def test_file_that_vanished_may_come_back(segmenter: RecordingSegmenter, tmp_path: Path) -> None:
    _, ends = read(list(segmenter.tables([Planned(0, "x", str(tmp_path / "x.wav"), True)])))
    error = ends[0].error
    assert error is not None
    assert (error[0], ends[0].permanent) == ("not_found", False)


def test_short_recording_is_done_beside_a_long_one_that_is_not_read_on(
    segmenter: RecordingSegmenter, tmp_path: Path
) -> None:
    long = segmenter.tables([Planned(0, "long", tone(tmp_path / "long.wav", 120.0), True)])
    next(long)
    short = tone(tmp_path / "short.wav", 2.0)
    done: list[dict[int, AudioEnd]] = []

    def run() -> None:
        done.append(read(list(segmenter.tables([Planned(1, "short", short, True)])))[1])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert done[0][1].error is None
    long.close()  # type: ignore[attr-defined]  # it is a generator
