import multiprocessing
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from serve_app.packs.registry import find_pack
from serve_app.packs.store import PackStore, install

SPAWN = multiprocessing.get_context("spawn")


def _is_there(target: Path) -> bool:
    return (target / "model.pt").is_file()


def _fill(scratch: Path, content: Path) -> None:
    (scratch / "pack.whl").write_bytes(b"downloaded")
    (content / "model.pt").write_bytes(b"weights")


def _fill_and_die(scratch: Path, content: Path) -> None:
    _fill(scratch, content)
    os._exit(9)


def _install_and_die(target: Path) -> None:
    install(target, is_good=_is_there, fill=_fill_and_die)


def _install_and_count(target: Path, log: Path, barrier: Barrier) -> None:
    def fill(scratch: Path, content: Path) -> None:
        with log.open("a") as file:
            file.write("filled\n")
        _fill(scratch, content)

    barrier.wait(timeout=120)
    install(target, is_good=_is_there, fill=fill)
    assert _is_there(target)


def test_installed_directory_holds_content_without_scratch(tmp_path: Path) -> None:
    target = tmp_path / "store" / "pack"
    install(target, is_good=_is_there, fill=_fill)
    assert [path.name for path in target.iterdir()] == ["model.pt"]
    assert {path.name for path in target.parent.iterdir()} == {"pack", ".pack.lock"}


def test_good_directory_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "pack"
    install(target, is_good=_is_there, fill=_fill)
    before = target.stat().st_ino
    install(target, is_good=_is_there, fill=_fill)
    assert target.stat().st_ino == before


def test_bad_directory_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "pack"
    target.mkdir()
    (target / "half.pt").write_bytes(b"")
    install(target, is_good=_is_there, fill=_fill)
    assert [path.name for path in target.iterdir()] == ["model.pt"]


def test_failed_fill_leaves_nothing_visible(tmp_path: Path) -> None:
    def fail(scratch: Path, content: Path) -> None:
        _fill(scratch, content)
        raise ValueError("in the middle")

    target = tmp_path / "pack"
    with pytest.raises(ValueError, match="in the middle"):
        install(target, is_good=_is_there, fill=fail)
    assert {path.name for path in tmp_path.iterdir()} == {".pack.lock"}


def test_killed_process_leaves_no_pack_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    target = tmp_path / "pack"
    process = SPAWN.Process(target=_install_and_die, args=(target,))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 9
    assert not target.exists()
    assert len(list(tmp_path.glob(".pack.partial-*"))) == 1

    install(target, is_good=_is_there, fill=_fill)
    assert _is_there(target)
    assert not list(tmp_path.glob(".pack.partial-*"))


def test_two_processes_at_once_fetch_once(tmp_path: Path) -> None:
    target, log = tmp_path / "pack", tmp_path / "log"
    barrier = SPAWN.Barrier(2)
    processes = [
        SPAWN.Process(target=_install_and_count, args=(target, log, barrier)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert log.read_text() == "filled\n"


def test_hub_names_get_distinct_directories(tmp_path: Path) -> None:
    store = PackStore(tmp_path)
    names = ("ms:org/a", "hf:org/a", "ms:org/a@v1", "paraformer-large")
    directories = {store.directory(find_pack(name)) for name in names}
    assert len(directories) == len(names)
    assert all(directory.parent == tmp_path for directory in directories)


def test_default_root_follows_xdg_cache_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert PackStore().root == Path("/somewhere/paraserve/packs")


def test_default_root_is_under_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert PackStore().root == Path("/home/someone/.cache/paraserve/packs")
