from pathlib import Path

from recipes.demo_packs.checksums import hash_builtin_files, write_builtin_checksums
from serve_app.packs.integrity import BUILTIN_DIRECTORY, read_builtin_checksums, sha256_of


def test_committed_checksums_agree_with_builtin_files() -> None:
    listed = {
        directory: {record.path: record.sha256 for record in records}
        for directory, records in read_builtin_checksums(BUILTIN_DIRECTORY).items()
    }
    assert listed == hash_builtin_files(BUILTIN_DIRECTORY), (
        "run `python -m recipes.demo_packs.checksums` after exporting packs"
    )


def test_written_checksums_can_be_read_back(tmp_path: Path) -> None:
    weights = tmp_path / "some-pack" / "model.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    write_builtin_checksums(tmp_path)
    (record,) = read_builtin_checksums(tmp_path)["some-pack"]
    assert (record.path, record.sha256) == ("model.pt", sha256_of(weights))


def test_absent_list_is_empty(tmp_path: Path) -> None:
    assert read_builtin_checksums(tmp_path) == {}
