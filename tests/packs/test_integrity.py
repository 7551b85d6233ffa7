from pathlib import Path

import pytest

from serve_app.core.errors import PackCorrupt, PackIncomplete
from serve_app.packs.integrity import (
    FileRecord,
    check_fully,
    check_quickly,
    raise_for_problems,
    record_files,
)


def test_untouched_files_have_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a.mvn").write_text("a")
    records = record_files(tmp_path)
    assert [check.problem for check in check_fully(tmp_path, records)] == [None]


def test_changed_file_of_same_size_is_found_by_both_checks(tmp_path: Path) -> None:
    path = tmp_path / "a.mvn"
    path.write_text("a")
    records = record_files(tmp_path)
    path.write_text("b")
    for checks in (check_fully(tmp_path, records), check_quickly(tmp_path, records)):
        with pytest.raises(PackCorrupt, match=r"a\.mvn: sha256"):
            raise_for_problems("pack", checks, "Pull again")


def test_error_for_a_truncated_file_names_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"12345")
    records = record_files(tmp_path)
    path.write_bytes(b"123")
    with pytest.raises(PackCorrupt, match="has 3 bytes instead of 5"):
        raise_for_problems("pack", check_quickly(tmp_path, records), "Pull again")


def test_missing_file_is_incomplete(tmp_path: Path) -> None:
    records = (FileRecord("am.mvn", "0" * 64),)
    with pytest.raises(PackIncomplete, match=r"am\.mvn: missing"):
        raise_for_problems("pack", check_quickly(tmp_path, records), "Pull again")


def test_quick_check_does_not_hash_large_files(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    records = (FileRecord("model.pt", "0" * 64, path.stat().st_size),)
    assert check_quickly(tmp_path, records)[0].problem is None
    assert check_fully(tmp_path, records)[0].problem is not None
