"""Directories of runs: private, and cleaned up after runs that died."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.core.errors import StartFailed
from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting import run_directory
from serve_app.hosting.run_directory import (
    RunDirectory,
    close_run,
    create_run_directory,
    end_leftovers,
    own_run_directory,
    write_private_files,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def dead(run: RunDirectory) -> RunDirectory:
    """Makes it one whose owner has died; somebody else may have its number now."""
    owner = json.loads((run.path / "owner.json").read_text())
    owner["start_ticks"] -= 1
    (run.path / "owner.json").write_text(json.dumps(owner))
    return run


@pytest.fixture
def left_behind(root: Path) -> Iterator[tuple[RunDirectory, subprocess.Popen[bytes]]]:
    run = create_run_directory(root)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        env={**os.environ, RUN_DIRECTORY_VARIABLE: str(run.path)},
        stdin=subprocess.PIPE,
    )
    yield run, child
    child.kill()
    child.communicate()


def test_everything_in_it_is_its_users_alone(root: Path) -> None:
    run = create_run_directory(root)
    write_private_files(run)
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(run.token.stat().st_mode) == 0o600
    assert len(run.token.read_text()) == 64


def test_sockets_below_it_have_short_enough_paths() -> None:
    # Ray's sockets, and HAProxy's with the directory and the suffix that they get.
    longest = max(
        len("/ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"),
        len(f"/{'f' * 56}/admin.4194304.tmp"),
    )
    assert len(str(run_directory.runs_root())) + 7 + longest <= 107


def test_place_that_another_user_could_have_laid_out_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="not a directory of this user"):
        create_run_directory(root)


def test_processes_of_a_dead_run_are_ended(
    root: Path, left_behind: tuple[RunDirectory, subprocess.Popen[bytes]]
) -> None:
    run, child = left_behind
    assert end_leftovers(root) == []
    assert child.poll() is None
    dead(run)
    assert [process.pid for process in end_leftovers(root)] == [child.pid]
    assert child.wait(10) != 0


def test_logs_of_the_last_dead_runs_are_kept(root: Path) -> None:
    runs = [dead(create_run_directory(root)) for _ in range(5)]
    for number, run in enumerate(runs):
        os.utime(run.path, (number, number))
    living = create_run_directory(root)
    end_leftovers(root)
    assert set(root.iterdir()) == {living.path, *(run.path for run in runs[-3:])}


def test_directory_that_is_not_a_run_is_left_alone(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / "notes").write_text("mine")
    (root / "folder").mkdir()
    assert end_leftovers(root) == []
    assert (root / "notes").exists()
    assert (root / "folder").exists()


def test_run_belongs_to_the_process_that_made_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_directory(root)
    monkeypatch.setenv(RUN_DIRECTORY_VARIABLE, str(run.path))
    assert own_run_directory() == run
    dead(run)
    (run.path / "owner.json").write_text('{"pid": 1, "start_ticks": 0}')
    assert own_run_directory() is None


def test_run_without_logs_leaves_nothing(root: Path) -> None:
    run = create_run_directory(root)
    write_private_files(run)
    close_run(run)
    assert not run.path.exists()
