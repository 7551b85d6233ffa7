from pathlib import Path

import pytest

from serve_app.core.errors import PackCorrupt
from serve_app.packs.integrity import MANIFEST_NAME, FileRecord, Manifest, read_manifest


def test_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    files = (FileRecord("model.pt", "ab" * 32, 7), FileRecord("am.mvn", "cd" * 32))
    manifest = Manifest("ms:a/b", "ms:a/b", None, "2026-01-01T00:00:00+00:00", files)
    manifest.write(tmp_path)
    assert read_manifest(tmp_path, "ms:a/b") == manifest


def test_directory_without_record_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path, "pack") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "files": 3}', "null", "\xff"])
def test_unreadable_record_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(text.encode("latin-1"))
    with pytest.raises(PackCorrupt, match="cannot be read"):
        read_manifest(tmp_path, "pack")
