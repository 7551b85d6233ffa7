from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from serve_app.batch import outputs, result_json, storage
from serve_app.batch.outputs import OutputStore
from serve_app.batch.records import TEXT_FORMATS, FinishedRecording
from serve_app.transcript.subtitles import SubtitleOptions
from tests.batch.recordings import failure, recording

TEXTS = TEXT_FORMATS


@pytest.fixture(params=["local", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> OutputStore:
    if request.param == "local":
        return OutputStore(str(tmp_path / "out"), TEXTS)
    return OutputStore(f"memory://{uuid.uuid4().hex}/out", TEXTS)


def document(store: OutputStore) -> dict[str, Any]:
    paths = [path for path in store.files.list_files("transcripts") if path.endswith(".json")]
    assert len(paths) == 1
    content: dict[str, Any] = json.loads(store.files.read(paths[0]) or b"")
    return content


def texts(store: OutputStore, recording_id: str) -> dict[str, bytes]:
    return {
        path.rpartition(".")[2]: store.files.read(path) or b""
        for path in store.files.list_files("transcripts")
    }


def test_result_is_found_with_its_fingerprint(store: OutputStore) -> None:
    assert store.finished() == {}
    assert store.write(recording())
    assert store.finished() == {"a/1.wav": "f1"}


def test_document_has_everything_of_the_recording(store: OutputStore) -> None:
    store.write(recording(reference="你好世纪", failed=True))
    found = document(store)
    assert found["text"] == "你好世界"
    assert [word["word"] for word in found["words"]] == list("你好世界")
    assert found["words"][0]["confidence"] == 0.9
    assert found["segments"][0]["text"] == "你好世界"
    assert found["models"]["asr"] == {"name": "paraformer-demo", "checksum": "bb"}
    assert found["times"]["recognize_s"] == 1.5
    assert found["cer"] == 0.25
    assert found["partial"] is True
    (failed,) = found["failed_ranges"]
    assert failed == {
        "start": 5.0,
        "end": 6.0,
        "error": "internal_error",
        "reason": "recognition_failed",
    }
    assert found["metadata"] == {"speaker": "甲", "n": [1, 2]}
    assert found["confidence"] == pytest.approx(0.9)


def test_secrets_of_a_url_are_not_written(store: OutputStore) -> None:
    store.write(recording())
    reason = "https://u:secret@host/x?token=hidden refused"
    store.write_failure(failure(reason=reason, uri="s3://k:secret@b/x?X-Signature=hidden"))
    store.collect_failures_jsonl()
    for path in store.files.list_files(""):
        content = store.files.read(path) or b""
        assert b"secret" not in content, path
        assert b"hidden" not in content, path


def test_recording_without_speech_is_finished(store: OutputStore) -> None:
    store.write(recording(text=""))
    assert store.finished() == {"a/1.wav": "f1"}
    assert document(store)["confidence"] is None


def test_same_result_is_not_written_twice(store: OutputStore) -> None:
    assert store.write(recording())
    before = store.files.list_files("transcripts")
    assert not store.write(recording())
    assert store.files.list_files("transcripts") == before


def test_result_of_another_content_replaces_the_old_one(store: OutputStore) -> None:
    store.write(recording())
    assert store.write(recording(text="再见", fingerprint="f2"))
    assert store.finished() == {"a/1.wav": "f2"}
    assert texts(store, "a/1.wav")["txt"] == "再见\n".encode()


def test_result_that_lacks_a_wanted_format_is_not_finished(tmp_path: Path) -> None:
    OutputStore(str(tmp_path)).write(recording())
    with_subtitles = OutputStore(str(tmp_path), ("srt",))
    assert with_subtitles.finished() == {}
    assert with_subtitles.write(recording())
    assert with_subtitles.finished() == {"a/1.wav": "f1"}


def test_subtitles_are_divided_as_the_settings_say(tmp_path: Path) -> None:
    options = SubtitleOptions(max_chars=6, max_lines=1)
    store = OutputStore(str(tmp_path), ("srt", "vtt"), subtitles=options)
    store.write(recording(text="我们现在开始讨论预算和进度"))
    for text_format in ("srt", "vtt"):
        content = texts(store, "a/1.wav")[text_format].decode()
        lines = [line for line in content.splitlines() if line[:1] > "\u2e7f"]
        assert "".join(lines) == "我们现在开始讨论预算和进度"
        assert len(lines) > 2
        assert max(map(len, lines)) <= 6


def test_text_of_an_older_transcript_does_not_stay(tmp_path: Path) -> None:
    OutputStore(str(tmp_path), ("srt",)).write(recording())
    OutputStore(str(tmp_path), ("txt",)).write(recording(text="再见", fingerprint="f2"))
    assert not list(tmp_path.rglob("*.srt"))


def test_failure_is_recorded_until_the_recording_succeeds(store: OutputStore) -> None:
    store.write_failure(failure())
    assert [each.id for each in store.failures()] == ["bad.wav"]
    store.write(recording("bad.wav"))
    assert store.failures() == []


def test_failure_after_the_same_result_is_not_recorded(store: OutputStore) -> None:
    store.write(recording("bad.wav"))
    assert not store.write_failure(failure("bad.wav"))
    assert store.failures() == []


def test_failures_are_collected_one_a_line(store: OutputStore) -> None:
    store.write_failure(failure("b.wav"))
    store.write_failure(failure("a.wav", "read_error"))
    store.write_failure(failure("other-job.wav"))
    store.collect_failures_jsonl(["a.wav", "b.wav"])
    lines = (store.files.read("failures.jsonl") or b"").decode().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(each["id"], each["kind"]) for each in found] == [
        ("a.wav", "read_error"),
        ("b.wav", "corrupt_audio"),
    ]


def test_result_changed_since_the_index_was_written_is_read_again(store: OutputStore) -> None:
    store.write(recording())
    store.finished()
    store.write(recording(fingerprint="f2"))
    assert store.finished() == {"a/1.wav": "f2"}


def test_index_that_is_damaged_does_no_harm(store: OutputStore) -> None:
    store.write(recording())
    store.finished()
    index = store.files.read("_run/index.jsonl") or b""
    store.files.put("_run/index.jsonl", index[: len(index) // 2] + b"\nnull\n[]\n")
    assert store.finished() == {"a/1.wav": "f1"}


def test_results_in_the_index_are_not_read_again(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    store.write(recording())
    store.finished()

    class Unreadable(storage.LocalFiles):
        def read(self, path: str, max_bytes: int | None = None) -> bytes | None:
            assert not path.startswith("transcripts")
            return super().read(path, max_bytes)

    assert OutputStore("", (), Unreadable(tmp_path)).finished() == {"a/1.wav": "f1"}


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"{}", b'{\n"format_version": 1,\n"id"'])
def test_foreign_file_among_the_results_is_not_one(store: OutputStore, content: bytes) -> None:
    store.files.put("transcripts/00/x.json", content)
    assert store.finished() == {}


def test_summary_survives_an_id_and_reference_of_any_length(store: OutputStore) -> None:
    long = recording("会" * 1000, reference="很长" * 30_000)
    store.write(long)
    assert store.finished() == {"会" * 1000: "f1"}


def test_store_travels_to_other_processes(store: OutputStore) -> None:
    traveled = pickle.loads(pickle.dumps(store))
    traveled.write(recording())
    assert store.finished() == {"a/1.wav": "f1"}


def test_leftovers_of_dead_writers_are_swept_and_never_listed(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path))
    store.write(recording())
    leftover = next(tmp_path.rglob("*.json")).parent / ".part-0123"
    leftover.write_bytes(b"{")
    assert store.finished() == {"a/1.wav": "f1"}
    assert store.sweep(older_than_s=3600) == 0
    assert store.sweep() == 1
    assert not leftover.exists()


def test_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        OutputStore(str(tmp_path)).write(recording())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Killed at any point: a kill leaves what is on disk at that moment, so the directory is
# looked at before every line that the writer runs.

_WRITER_FILES = frozenset(str(module.__file__) for module in (outputs, storage, result_json))


def _before_each_line(run: Callable[[], object], look: Callable[[], None]) -> int:
    num_lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal num_lines
        if frame.f_code.co_filename not in _WRITER_FILES:
            return None
        if event == "line":
            num_lines += 1
            sys.settrace(None)
            try:
                look()
            finally:
                sys.settrace(trace)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return num_lines


def _visible(directory: Path) -> dict[str, bytes]:
    """What a reader finds: the recording's files if its JSON is there."""
    found = {
        path.suffix: path.read_bytes()
        for path in (directory / "transcripts").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    return found if ".json" in found else {}


def _written(directory: Path, finished: FinishedRecording) -> dict[str, bytes]:
    OutputStore(str(directory), TEXTS).write(finished)
    return _visible(directory)


OLD, NEW = recording(), recording(text="再见了", fingerprint="f2")


@pytest.mark.parametrize("before", ["nothing", "old result", "old failure", "same result"])
def test_writer_killed_at_any_line_leaves_a_whole_result_or_none(
    tmp_path: Path, before: str
) -> None:
    new = _written(tmp_path / "clean", NEW)
    old = _written(tmp_path / "clean-old", OLD)
    out = tmp_path / "out"
    store = OutputStore(str(out), TEXTS)
    if before == "old result":
        store.write(OLD)
    elif before == "old failure":
        store.write_failure(failure(NEW.item.id))
    elif before == "same result":
        store.write(NEW)
    distinct: dict[tuple[tuple[str, int], ...], Path] = {}

    def look() -> None:
        visible = _visible(out)
        assert visible in ({}, old, new)
        state = tuple(sorted((str(p.relative_to(out)), p.stat().st_size) for p in out.rglob("*.*")))
        if state not in distinct:
            distinct[state] = tmp_path / "snapshots" / str(len(distinct))
            if out.exists():
                shutil.copytree(out, distinct[state])

    assert _before_each_line(lambda: store.write(NEW), look) > 20
    assert len(distinct) > (0 if before == "same result" else 8)
    for directory in distinct.values():
        resumed = OutputStore(str(directory), TEXTS)
        done = resumed.finished().get(NEW.item.id) == "f2"
        if not done:
            assert resumed.write(NEW)
        resumed.sweep()
        assert _visible(directory) == new
        assert resumed.failures() == []
        assert resumed.finished() == {NEW.item.id: "f2"}
        assert not list(directory.rglob(".part-*"))


def test_index_writer_killed_at_any_line_does_no_harm(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path / "out"))
    store.write(OLD)

    def look() -> None:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "out", copy)
        assert OutputStore(str(copy)).finished() == {OLD.item.id: "f1"}

    assert _before_each_line(lambda: store._write_index({}), look) > 5


def test_new_output_records_its_layout(tmp_path: Path) -> None:
    assert OutputStore(str(tmp_path), layout="hashed").settle_layout() == "hashed"
    assert OutputStore(str(tmp_path), layout="mirror").settle_layout() == "hashed"


def test_output_begun_before_layouts_were_recorded_stays_hashed(tmp_path: Path) -> None:
    store = OutputStore(str(tmp_path), layout="mirror")
    store.files.put("_run/progress.json", b"{}")
    assert store.settle_layout() == "hashed"


def test_mirrored_output_has_the_folders_of_the_source(tmp_path: Path) -> None:
    OutputStore(str(tmp_path), ("txt",)).write(recording("calls/a.wav"))
    assert (tmp_path / "transcripts/calls/a.wav.json").exists()
    assert (tmp_path / "transcripts/calls/a.wav.txt").exists()
