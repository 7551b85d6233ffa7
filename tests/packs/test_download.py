import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from serve_app.core.errors import PackFetchFailed
from serve_app.packs.download import ALLOWED_PATTERNS, fetch_from_hub
from serve_app.packs.registry import Hub, HubSource
from tests.packs.hub_fakes import FakeHub

MODELSCOPE = HubSource(Hub.MODELSCOPE, "org/name", "v2.0.4")
HUGGING_FACE = HubSource(Hub.HUGGING_FACE, "org/name")


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    scratch, content = tmp_path / "scratch", tmp_path / "content"
    scratch.mkdir()
    content.mkdir()
    return scratch, content


@pytest.mark.parametrize("file_name", ["model.py", "setup.py", "model.pb", "install.sh", "a.so"])
def test_code_matches_no_allowed_pattern(file_name: str) -> None:
    assert not any(fnmatch(file_name, pattern) for pattern in ALLOWED_PATTERNS)


def test_both_hubs_are_asked_for_allowed_files_only(
    hub: FakeHub, places: tuple[Path, Path]
) -> None:
    for source in (MODELSCOPE, HUGGING_FACE):
        fetch_from_hub("pack", source, *places)
    assert [call.allow_patterns for call in hub.calls] == [list(ALLOWED_PATTERNS)] * 2
    assert [call.repository for call in hub.calls] == ["org/name"] * 2


def test_code_is_dropped_even_if_a_client_brings_it(
    hub: FakeHub, places: tuple[Path, Path]
) -> None:
    (hub.origin / "model.py").write_text("raise SystemExit")
    (hub.origin / ".msc").write_text("a client's own record")
    (hub.origin / "example").mkdir()
    (hub.origin / "example" / "notes.txt").write_text("not of the pack")
    fetch_from_hub("pack", MODELSCOPE, *places)
    assert {path.name for path in places[1].iterdir()} == {
        "am.mvn",
        "config.yaml",
        "configuration.json",
        "model.pt",
    }


def test_link_into_a_clients_cache_becomes_a_file(
    hub: FakeHub, places: tuple[Path, Path], tmp_path: Path
) -> None:
    cached = tmp_path / "blob"
    cached.write_bytes(b"weights")
    (places[0] / "extra.pt").symlink_to(cached)
    fetch_from_hub("pack", MODELSCOPE, *places)
    taken = places[1] / "extra.pt"
    assert not taken.is_symlink()
    assert taken.read_bytes() == b"weights"


def test_modelscope_revision_is_passed_on(hub: FakeHub, places: tuple[Path, Path]) -> None:
    assert fetch_from_hub("pack", MODELSCOPE, *places) == "v2.0.4"
    assert hub.calls[0].revision == "v2.0.4"


def test_hugging_face_branch_becomes_a_commit(hub: FakeHub, places: tuple[Path, Path]) -> None:
    assert fetch_from_hub("pack", HUGGING_FACE, *places) == "c0ffee"
    assert hub.calls[0].revision == "c0ffee"


@pytest.mark.parametrize(
    ("source", "module", "extra"),
    [
        (MODELSCOPE, "modelscope", "paraserve[modelscope]"),
        (HUGGING_FACE, "huggingface_hub", "paraserve[huggingface]"),
    ],
)
def test_missing_client_names_the_extra(
    source: HubSource,
    module: str,
    extra: str,
    places: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PackFetchFailed, match="not installed") as caught:
        fetch_from_hub("pack", source, *places)
    assert f"pip install '{extra}'" in str(caught.value)


def test_error_of_the_hub_client_is_reported_in_one_line(
    hub: FakeHub, places: tuple[Path, Path]
) -> None:
    hub.error = ConnectionError("no route\nto host")
    with pytest.raises(PackFetchFailed, match="ConnectionError: no route to host"):
        fetch_from_hub("pack", MODELSCOPE, *places)


def test_repository_without_pack_files_is_refused(
    hub: FakeHub, places: tuple[Path, Path], tmp_path: Path
) -> None:
    hub.origin = tmp_path / "empty"
    hub.origin.mkdir()
    with pytest.raises(PackFetchFailed, match="no files of a model pack"):
        fetch_from_hub("pack", MODELSCOPE, *places)
