from pathlib import Path

import pytest

from recipes.demo_packs.checksums import write_builtin_checksums
from serve_app.core.errors import PackCorrupt, PackNotFound
from serve_app.packs import REGISTERED, PackStore, inspection, list_packs, pull, resolve, verify
from serve_app.packs.integrity import MANIFEST_NAME
from tests.packs.hub_fakes import FakeHub

HUB_NAME = "hf:org/name"


@pytest.fixture
def builtin(pack_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the built-in packs, holding one."""
    directory = tmp_path / "builtin"
    directory.mkdir()
    pack_directory.rename(directory / "paraformer-demo")
    write_builtin_checksums(directory)
    monkeypatch.setattr(inspection, "BUILTIN_DIRECTORY", directory)
    return directory


def test_empty_store_lists_registered_packs_only(store: PackStore) -> None:
    packs = list_packs(store)
    assert [pack.name for pack in packs] == list(REGISTERED)
    assert not store.root.exists()


def test_pulled_pack_is_listed_with_size_and_checksum(hub: FakeHub, store: PackStore) -> None:
    contents = pull(HUB_NAME, store)
    status = next(pack for pack in list_packs(store) if pack.name == HUB_NAME)
    assert status.present
    assert status.checksum == contents.checksum
    assert status.size_bytes is not None
    assert status.size_bytes > contents.weights.stat().st_size


def test_unreadable_record_does_not_hide_other_packs(hub: FakeHub, store: PackStore) -> None:
    (pull(HUB_NAME, store).directory / MANIFEST_NAME).write_text("{")
    assert [pack.name for pack in list_packs(store)] == list(REGISTERED)


def test_verify_hashes_every_recorded_file(hub: FakeHub, store: PackStore) -> None:
    pull(HUB_NAME, store)
    report = verify(HUB_NAME, store)
    assert report.ok
    assert report.compared_with == "recorded"
    assert all(check.actual_sha256 == check.expected_sha256 for check in report.files)


def test_verify_names_the_spoiled_file(hub: FakeHub, store: PackStore) -> None:
    weights = pull(HUB_NAME, store).weights
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    report = verify(HUB_NAME, store)
    assert not report.ok
    assert [check.path for check in report.files if check.problem] == ["model.pt"]


def test_verify_of_plain_directory_compares_with_nothing(
    pack_directory: Path, store: PackStore
) -> None:
    report = verify(str(pack_directory), store)
    assert report.ok
    assert report.compared_with == "nothing"
    assert len(report.files) == 4


def test_verify_of_directory_that_contradicts_itself_is_not_ok(
    pack_directory: Path, store: PackStore
) -> None:
    (pack_directory / "am.mvn").unlink()
    report = verify(str(pack_directory), store)
    assert not report.ok
    assert "am.mvn" in str(report.problem)


def test_verify_of_absent_pack_is_not_found(store: PackStore) -> None:
    with pytest.raises(PackNotFound):
        verify("ct-punc", store)


def test_builtin_pack_is_compared_with_the_committed_checksums(
    builtin: Path, store: PackStore
) -> None:
    assert resolve("paraformer-demo", store).directory == builtin / "paraformer-demo"
    assert verify("paraformer-demo", store).compared_with == "built-in"


def test_changed_builtin_pack_is_corrupt(builtin: Path, store: PackStore) -> None:
    (builtin / "paraformer-demo" / "config.yaml").write_text("model: Other\n")
    with pytest.raises(PackCorrupt, match="Reinstall Paraserve"):
        resolve("paraformer-demo", store)


def test_missing_builtin_pack_is_reported(builtin: Path, store: PackStore) -> None:
    with pytest.raises(PackNotFound, match="this installation lacks"):
        resolve("ct-punc-demo", store)


def test_published_vad_is_verified_against_its_pins(pack_store: PackStore) -> None:
    resolve("fsmn-vad", pack_store)
    report = verify("fsmn-vad", pack_store)
    assert report.ok
    assert report.compared_with == "pinned"
