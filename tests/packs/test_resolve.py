import sys
from pathlib import Path

import pytest

from serve_app.core.errors import PackCorrupt, PackFetchFailed, PackIncomplete, PackNotFound
from serve_app.packs import PackStore, integrity, pull, resolve
from serve_app.packs.integrity import MANIFEST_NAME, read_manifest
from tests.packs.hub_fakes import FakeHub

HUB_NAME = "ms:org/name@v1"


def _visible(store: PackStore) -> list[str]:
    return [path.name for path in sorted(store.root.glob("[!.]*"))]


def test_directory_resolves_to_its_contents(pack_directory: Path, store: PackStore) -> None:
    contents = resolve(f"dir:{pack_directory}", store)
    assert contents.directory == pack_directory
    assert contents.name == pack_directory.name
    assert not store.root.exists()


def test_missing_directory_error_lists_the_required_files(tmp_path: Path, store: PackStore) -> None:
    with pytest.raises(PackNotFound, match=r"config\.yaml, model\.pt"):
        resolve(f"dir:{tmp_path}/nothing", store)


@pytest.mark.parametrize("file_name", ["model.pt", "config.yaml", "am.mvn"])
def test_directory_that_lacks_a_file_is_incomplete(
    pack_directory: Path, store: PackStore, file_name: str
) -> None:
    (pack_directory / file_name).unlink()
    with pytest.raises(PackIncomplete, match=file_name.replace(".", r"\.")):
        resolve(str(pack_directory), store)


def test_pulled_pack_has_a_record(hub: FakeHub, store: PackStore) -> None:
    contents = pull(HUB_NAME, store)
    manifest = read_manifest(contents.directory, HUB_NAME)
    assert manifest is not None
    assert (manifest.name, manifest.source, manifest.revision) == (HUB_NAME, HUB_NAME, "v1")
    assert {file.path for file in manifest.files} == {
        "am.mvn",
        "config.yaml",
        "configuration.json",
        "model.pt",
    }


def test_resolve_downloads_once(hub: FakeHub, store: PackStore) -> None:
    first = resolve(HUB_NAME, store)
    second = resolve(HUB_NAME, store)
    assert first.directory == second.directory
    assert len(hub.calls) == 1


def test_pull_reports_its_progress(hub: FakeHub, store: PackStore) -> None:
    activities: list[str] = []
    pull(HUB_NAME, store, lambda activity, done_bytes, total_bytes: activities.append(activity))
    assert activities == [f"fetching {HUB_NAME}", "checking", "done"]


def test_missing_pack_without_downloads_explains_what_to_copy(
    hub: FakeHub, store: PackStore
) -> None:
    with pytest.raises(PackNotFound) as caught:
        resolve("paraformer-large", store, fetch=False)
    message = str(caught.value)
    assert str(store.root / "paraformer-large") in message
    assert "model.pt, am.mvn, tokens.json and seg_dict" in message
    assert "paraserve models pull paraformer-large --to DIR" in message
    assert not hub.calls


def test_copied_pack_resolves_without_fetching(
    hub: FakeHub, store: PackStore, tmp_path: Path
) -> None:
    carried = tmp_path / "carried"
    pull(HUB_NAME, PackStore(tmp_path / "connected"), to=carried)
    store.root.mkdir()
    carried.rename(store.root / "ms--org--name@v1")
    assert resolve(HUB_NAME, store, fetch=False).name == HUB_NAME


def test_spoiled_pack_is_corrupt_and_not_silently_fetched_again(
    hub: FakeHub, store: PackStore
) -> None:
    path = pull(HUB_NAME, store).directory / "am.mvn"
    path.write_bytes(path.read_bytes().replace(b"0.", b"1.", 1))
    with pytest.raises(PackCorrupt, match=r"am\.mvn: sha256.*paraserve models pull"):
        resolve(HUB_NAME, store)
    assert len(hub.calls) == 1


def test_weights_too_large_to_hash_twice_are_still_compared(
    hub: FakeHub, store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = pull(HUB_NAME, store).weights
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(integrity, "_ALWAYS_HASHED_BYTES", 0)
    with pytest.raises(PackCorrupt, match=r"model\.pt: sha256"):
        resolve(HUB_NAME, store)


def test_pull_repairs_a_spoiled_pack(hub: FakeHub, store: PackStore) -> None:
    (pull(HUB_NAME, store).directory / "am.mvn").unlink()
    pull(HUB_NAME, store)
    assert resolve(HUB_NAME, store, fetch=False).cmvn is not None
    assert len(hub.calls) == 2


def test_incomplete_download_leaves_nothing_visible(hub: FakeHub, store: PackStore) -> None:
    (hub.origin / "model.pt").unlink()
    with pytest.raises(PackIncomplete, match=r"model\.pt"):
        pull(HUB_NAME, store)
    assert _visible(store) == []


def test_failed_download_leaves_nothing_visible(hub: FakeHub, store: PackStore) -> None:
    hub.error = ConnectionError("gone")
    with pytest.raises(PackFetchFailed, match="gone"):
        pull(HUB_NAME, store)
    assert _visible(store) == []


def test_twin_hub_is_used_when_the_first_client_is_missing(
    hub: FakeHub, store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    directory = pull("ct-punc", store).directory
    manifest = read_manifest(directory, "ct-punc")
    assert manifest is not None
    assert manifest.source.startswith("hf:funasr/ct-punc@")


def test_failure_of_both_twins_tells_both(
    hub: FakeHub, store: PackStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    hub.error = ConnectionError("gone")
    with pytest.raises(PackFetchFailed) as caught:
        pull("ct-punc", store)
    assert "paraserve[modelscope]" in str(caught.value)
    assert "gone" in str(caught.value)


def test_hand_filled_directory_is_used(hub: FakeHub, store: PackStore) -> None:
    store.root.mkdir()
    hub.origin.rename(store.root / "ms--org--name@v1")
    assert pull(HUB_NAME, store).model_class == "FsmnVADStreaming"
    assert not hub.calls


def test_pull_never_replaces_foreign_files(hub: FakeHub, store: PackStore, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(PackCorrupt, match="was not written by a pull"):
        pull(HUB_NAME, store, to=tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_pull_into_a_directory_leaves_the_store_alone(
    hub: FakeHub, store: PackStore, tmp_path: Path
) -> None:
    contents = pull(HUB_NAME, store, to=tmp_path / "exported")
    assert contents.directory == tmp_path / "exported"
    assert (tmp_path / "exported" / MANIFEST_NAME).is_file()
    assert not store.root.exists()


def test_unwritable_store_is_reported(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file, not a directory")
    with pytest.raises(PackFetchFailed, match="cannot be written"):
        pull(HUB_NAME, PackStore(tmp_path / "occupied"))


def test_pinned_pack_is_compared_with_its_pins_and_not_its_record(
    pack_directory: Path, store: PackStore
) -> None:
    (pack_directory / "config.yaml").write_text("model: Other\n")
    store.root.mkdir()
    pack_directory.rename(store.root / "fsmn-vad")
    with pytest.raises(PackCorrupt, match=r"config\.yaml"):
        resolve("fsmn-vad", store, fetch=False)
