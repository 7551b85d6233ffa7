from __future__ import annotations

from pathlib import Path

import pytest

from serve_app.batch.fingerprint import file_info, item_fingerprint
from serve_app.batch.manifest import read_items
from serve_app.batch.outputs import OutputStore
from serve_app.batch.pending import PendingRecordings, find_pending
from serve_app.batch.records import BatchItem, Failure
from serve_app.settings import Settings

DIGEST = "0" * 32


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings(profile="demo")


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return OutputStore(str(tmp_path / "out"))


@pytest.fixture
def item(tmp_path: Path) -> BatchItem:
    path = tmp_path / "a.wav"
    path.write_bytes(b"content")
    return BatchItem("a.wav", str(path))


def pending(
    items: list[BatchItem], store: OutputStore, settings: Settings, *, retry_failed: bool = False
) -> PendingRecordings:
    return find_pending(items, store, DIGEST, settings, retry_failed=retry_failed)


def failure(item: BatchItem, *, permanent: bool) -> Failure:
    fingerprint = item_fingerprint(DIGEST, item, file_info(item))
    return Failure(item.id, item.uri, "corrupt_audio", "no good", permanent, 1, fingerprint)


def test_new_recording_is_to_be_done(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    (work,) = pending([item], store, settings).works
    assert (work.item, work.size_bytes) == (item, 7)
    assert work.stages == frozenset(settings.stages)


def test_file_that_is_missing_fails_at_once_and_may_come(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    Path(item.uri).unlink()
    found = pending([item], store, settings)
    (failed,) = found.failures
    assert (failed.kind, failed.permanent, found.works) == ("not_found", False, [])


def test_bad_file_is_not_tried_again_until_it_changes(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    store.write_failure(failure(item, permanent=True))
    found = pending([item], store, settings)
    assert (found.works, found.num_given_up) == ([], 1)
    Path(item.uri).write_bytes(b"another content")
    assert len(pending([item], store, settings).works) == 1


def test_bad_file_is_retried_on_request(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    store.write_failure(failure(item, permanent=True))
    assert len(pending([item], store, settings, retry_failed=True).works) == 1


def test_failure_that_may_pass_is_tried_again(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    store.write_failure(failure(item, permanent=False))
    assert len(pending([item], store, settings).works) == 1


def test_language_that_the_recognizer_does_not_know_is_refused(
    item: BatchItem, store: OutputStore, settings: Settings
) -> None:
    foreign = BatchItem(item.id, item.uri, language="tlh")
    (failed,) = pending([foreign], store, settings).failures
    assert (failed.kind, failed.permanent) == ("unsupported_language", True)
    assert "tlh" in failed.reason


def test_language_with_a_region_is_the_one_without(
    store: OutputStore, settings: Settings, tmp_path: Path
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("uri,language\na.wav,zh-CN\nb.wav,zh\n", encoding="utf-8")
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(b"content")
    found = pending(list(read_items(str(manifest))), store, settings)
    assert [work.item.language for work in found.works] == ["zh", "zh"]
    assert found.failures == []


def test_stage_that_the_job_does_not_run_is_refused(item: BatchItem, store: OutputStore) -> None:
    settings = Settings(profile="demo", stages=("asr",))
    wanted = BatchItem(item.id, item.uri, stages=("asr", "punctuation"))
    (failed,) = pending([wanted], store, settings).failures
    assert failed.kind == "stage_not_deployed"


def test_item_may_leave_stages_out(item: BatchItem, store: OutputStore, settings: Settings) -> None:
    (work,) = pending([BatchItem(item.id, item.uri, stages=("asr",))], store, settings).works
    assert work.stages == {"asr"}
