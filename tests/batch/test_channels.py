"""Separate channels in a batch job: the order, the manifest, the tables, and the results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serve_app.audio import AudioLimits
from serve_app.batch.__main__ import _assignments
from serve_app.batch.arguments import parse_arguments
from serve_app.batch.arrow_tables import (
    Assembler,
    Planned,
    RecognizedRecording,
    read_audio,
    read_words,
    words_table,
)
from serve_app.batch.manifest_rows import Row, RowProblem, item_of
from serve_app.batch.outputs import OutputStore
from serve_app.batch.pending import Work, find_pending
from serve_app.batch.punctuate_stage import FinishTask, TranscriptWriter, subtitles_of
from serve_app.batch.ray_data import planned_of
from serve_app.batch.records import BatchItem, PackIdentity
from serve_app.batch.remote_reader import ReadOptions
from serve_app.batch.segment_stage import RecordingSegmenter
from serve_app.core.records import PackRole
from serve_app.settings import Settings
from serve_app.transcript.segmentation import SegmentationOptions
from tests.fakes.calls import file_of
from tests.fakes.engines import FakeRecognizer, FakeVad

MODELS: Mapping[PackRole, PackIdentity] = {"asr": PackIdentity("a", "1")}
OPTIONS = SegmentationOptions(AudioLimits(block_s=1.0), max_segment_s=5.0, max_group_s=10.0)


@pytest.fixture
def call(tmp_path: Path) -> BatchItem:
    """A call: one side speaks from 1 to 3 s, the other from 2 to 2.5 s."""
    pcm = np.zeros((5 * 16_000, 2), np.int16)
    pcm[16_000:48_000, 0] = 500
    pcm[32_000:40_000, 1] = 500
    path = tmp_path / "call.flac"
    path.write_bytes(file_of(pcm).tobytes())
    return BatchItem("call", str(path))


def recognized(item: BatchItem, *, separate: bool) -> RecognizedRecording:
    segmenter = RecordingSegmenter(FakeVad(), OPTIONS, ReadOptions(64 * 1024, 1))
    planned = Planned(0, item.id, item.uri, True, separate_channels=separate)
    assembler = Assembler()
    complete: list[RecognizedRecording] = []
    for table in segmenter.tables([planned]):
        chunks, ends = read_audio(table)
        results = FakeRecognizer().transcribe([chunk.pcm for _, chunk in chunks])
        rows = [
            (number, chunk, result, 0.1)
            for (number, chunk), result in zip(chunks, results, strict=True)
        ]
        complete += assembler.add(read_words(words_table(rows, ends)))
    (recording,) = complete
    return recording


async def test_results_name_the_channel_and_so_do_subtitles(
    call: BatchItem, tmp_path: Path
) -> None:
    heard = recognized(call, separate=True)
    store = OutputStore(str(tmp_path / "out"), ("srt", "txt"), subtitles=subtitles_of(Settings()))
    writer = TranscriptWriter(None, None, MODELS, store)
    await writer.finish(FinishTask(call, "f" * 32, frozenset({"asr"}), heard))

    written = {path.suffix: path for path in (tmp_path / "out").rglob("call.*")}
    body = json.loads(written[".json"].read_text("utf-8"))
    assert [(one["start"], one["channel"]) for one in body["segments"]] == [(1.0, 0), (2.0, 1)]
    assert {one["channel"] for one in body["words"]} == {0, 1}
    assert [one["channel"] for one in body["utterances"]] == [0, 1]
    assert body["num_channels"] == 2
    assert body["duration"] == 5.0
    assert written[".txt"].read_text("utf-8").count("\n") == 2
    srt = written[".srt"].read_text("utf-8")
    assert "Channel 1: " in srt
    assert "Channel 2: " in srt


async def test_results_of_the_mix_have_no_channels(call: BatchItem, tmp_path: Path) -> None:
    heard = recognized(call, separate=False)
    store = OutputStore(str(tmp_path / "out"), ("srt",), subtitles=subtitles_of(Settings()))
    writer = TranscriptWriter(None, None, MODELS, store)
    await writer.finish(FinishTask(call, "f" * 32, frozenset({"asr"}), heard))

    written = {path.suffix: path for path in (tmp_path / "out").rglob("call.*")}
    body = json.loads(written[".json"].read_text("utf-8"))
    assert body["num_channels"] == 1
    assert not any("channel" in one for one in body["segments"])
    assert "Channel" not in written[".srt"].read_text("utf-8")


def test_a_failure_names_its_channel(call: BatchItem) -> None:
    heard = recognized(call, separate=True)
    broken = replace(heard.utterances[1], status="failed", error="engine_error: x", tokens=())
    failed = replace(heard, utterances=(heard.utterances[0], broken))
    assert failed.error is not None
    assert f"of channel {broken.channel}" in failed.error[1]


@pytest.mark.parametrize(
    ("written", "expected", "metadata"),
    [
        ({}, None, {}),
        ({"channels": "separate"}, "separate", {}),
        ({"channels": " Mix "}, "mix", {}),
        # As other tools write it.
        ({"channels": 2}, None, {"channels": 2}),
        ({"channels": "2"}, None, {"channels": "2"}),
    ],
)
def test_a_manifest_may_say_how_to_recognize_channels(
    written: dict[str, str], expected: str | None, metadata: dict[str, object]
) -> None:
    item = item_of(Row(1, {"uri": "/a.wav", **written}), "/")
    assert isinstance(item, BatchItem)
    assert (item.channels, item.metadata) == (expected, metadata)


def test_another_word_for_channels_is_a_problem_of_its_line() -> None:
    problem = item_of(Row(3, {"uri": "/a.wav", "channels": "seperate"}), "/")
    assert isinstance(problem, RowProblem)
    assert "mix, separate" in problem.problem


def pending(item: BatchItem, directory: Path, **sections: object) -> Work:
    settings = Settings.model_validate(sections)
    store = OutputStore(str(directory / "none"))
    (work,) = find_pending([item], store, "digest", settings, retry_failed=False).works
    return work


def test_the_item_decides_and_then_the_job(call: BatchItem, tmp_path: Path) -> None:
    job = {"batch": {"channels": "separate"}}
    assert not pending(call, tmp_path).separate_channels
    assert pending(call, tmp_path, **job).separate_channels
    assert not pending(replace(call, channels="mix"), tmp_path, **job).separate_channels
    own = pending(replace(call, channels="separate"), tmp_path)
    assert own.separate_channels
    assert planned_of(0, own).separate_channels


def test_fingerprint_depends_on_what_is_recognized_and_not_on_who_asks(
    call: BatchItem, tmp_path: Path
) -> None:
    job = {"batch": {"channels": "separate"}}
    mixed = pending(call, tmp_path).fingerprint
    separate = pending(call, tmp_path, **job).fingerprint
    assert separate != mixed
    assert pending(replace(call, channels="separate"), tmp_path).fingerprint == separate
    assert pending(replace(call, channels="mix"), tmp_path, **job).fingerprint == mixed
    more = {**job, "audio": {"max_separate_channels": 4}}
    assert pending(call, tmp_path, **more).fingerprint != separate
    more = {"audio": {"max_separate_channels": 4}}
    assert pending(call, tmp_path, **more).fingerprint == mixed


def test_the_command_sets_the_jobs_channels() -> None:
    options = parse_arguments(["in", "out", "--channels", "separate"], None)
    assert _assignments(options) == ["batch.channels=separate"]
    assert _assignments(parse_arguments(["in", "out"], None)) == []
