from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path

import pytest

from serve_app.batch.fingerprint import (
    TranscriptConfig,
    config_fingerprint,
    config_of,
    file_info,
    item_fingerprint,
)
from serve_app.batch.records import BatchItem, FileInfo, PackIdentity
from serve_app.core.speakers import SpeakerOptions
from serve_app.settings import Settings
from serve_app.transcript.subtitles import SubtitleOptions
from tests.batch.recordings import MODELS

CONFIG = config_of(Settings(), MODELS)
ITEM = BatchItem("1", "/data/1.wav")
FILE = FileInfo(1000, "v1")

OTHERS = {
    "models": {**MODELS, "asr": PackIdentity("paraformer-demo", "cc")},
    "recognizer_dtype": "int8",
    "punctuator_dtype": "float16",
    "max_end_silence_ms": 500,
    "max_segment_s": 20.0,
    "sentence_break_s": None,
    "min_duration_s": 1.0,
    "max_duration_s": 60.0,
    "language": "en",
    "itn": True,
    "replacements": (("云梯", "云T"),),
    "engine": "onnx",
    "drafting": {"whisper": {"language": "en"}},
    "subtitles": SubtitleOptions(max_chars=12),
    "speakers": "any",
    "output_version": 99,
}


@pytest.mark.parametrize("name", [field.name for field in fields(TranscriptConfig)])
def test_fingerprint_changes_with_every_part_of_the_configuration(name: str) -> None:
    other = copy.copy(CONFIG)
    object.__setattr__(other, name, OTHERS[name])
    assert config_fingerprint(other) != config_fingerprint(CONFIG)


def test_settings_of_drafts_change_the_fingerprint_with_drafts() -> None:
    def digest(engine: str, **sections: Mapping[str, object]) -> str:
        settings = Settings.model_validate({"recognizer": {"engine": engine, **sections}})
        return config_fingerprint(config_of(settings, MODELS))

    other_whisper = {"whisper": {"language": "auto"}}
    other_doubts = {"hybrid": {"refine_empty": False}}
    assert digest("paraformer", **other_whisper, **other_doubts) == digest("paraformer")
    assert digest("whispercpp", **other_whisper) != digest("whispercpp")
    assert digest("whispercpp", **other_doubts) == digest("whispercpp")
    assert digest("hybrid", **other_doubts) != digest("hybrid")


def test_drafter_is_part_of_the_configuration() -> None:
    drafted = config_of(Settings(), {**MODELS, "draft": PackIdentity("whisper-base", "dd")})
    assert config_fingerprint(drafted) != config_fingerprint(CONFIG)


def test_fingerprint_does_not_depend_on_the_order_of_stages() -> None:
    turned = replace(CONFIG, models=dict(reversed(MODELS.items())))
    assert config_fingerprint(turned) == config_fingerprint(CONFIG)


@pytest.mark.parametrize(
    ("item", "file"),
    [
        (ITEM, FileInfo(1001, "v1")),
        (ITEM, FileInfo(1000, "v2")),
        (ITEM, FileInfo(1000, None)),
        (replace(ITEM, language="zh"), FILE),
        (replace(ITEM, stages=("asr",)), FILE),
    ],
)
def test_fingerprint_changes_with_content_and_wishes(item: BatchItem, file: FileInfo) -> None:
    assert item_fingerprint("c", item, file) != item_fingerprint("c", ITEM, FILE)


def test_fingerprint_does_not_depend_on_what_the_transcript_does_not() -> None:
    moved = replace(ITEM, uri="/else/1.wav", reference="你好", metadata={"a": 1})
    assert item_fingerprint("c", moved, FILE) == item_fingerprint("c", ITEM, FILE)


def test_file_that_changes_has_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"1234")
    item = BatchItem("a", str(path))
    before = file_info(item)
    assert before.size_bytes == 4
    path.write_bytes(b"12345")
    assert file_info(item) != before


def test_file_that_is_missing_or_a_directory_is_not_found(tmp_path: Path) -> None:
    for name in ("", "missing.wav"):
        with pytest.raises(FileNotFoundError):
            file_info(BatchItem("a", str(tmp_path / name)))


def test_results_without_labels_keep_their_fingerprint() -> None:
    config = copy.copy(CONFIG)
    object.__setattr__(config, "subtitles", SubtitleOptions())
    before = {"batch": {"speakers": "2"}}
    assert config_fingerprint(config_of(Settings.model_validate(before), MODELS)) == (
        config_fingerprint(CONFIG)
    )
    named = replace(ITEM, speakers=SpeakerOptions(2))
    assert item_fingerprint("x", named, FILE) != item_fingerprint("x", ITEM, FILE)


def test_number_of_speakers_counts_where_labels_are_made() -> None:
    stages = ("asr", "speakers")

    def digest(speakers: str | None) -> str:
        settings = Settings.model_validate({"stages": stages, "batch": {"speakers": speakers}})
        return config_fingerprint(config_of(settings, MODELS))

    assert len({digest(None), digest("2"), digest("2-4")}) == 3
