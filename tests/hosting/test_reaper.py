"""Whatever becomes of the owner of a run, what it has started is ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serve_app.hosting.processes import processes_of_run
from serve_app.hosting.run_directory import RunDirectory
from tests.waiting import wait_until

OWNER = """
import os, subprocess, sys
from pathlib import Path
from serve_app.core.in_flight import RUN_DIRECTORY_VARIABLE
from serve_app.hosting.reaper import Reaper
from serve_app.hosting.run_directory import create_run_directory
run = create_run_directory(Path(sys.argv[1]))
os.environ[RUN_DIRECTORY_VARIABLE] = str(run.path)
reaper = Reaper(run)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(run.path, flush=True)
input()
reaper.dismiss()
print(child.wait(), flush=True)
"""


def start_owner(root: Path) -> tuple[subprocess.Popen[str], RunDirectory]:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    return owner, RunDirectory(Path(owner.stdout.readline().strip()))


def test_everything_ends_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner, run = start_owner(tmp_path / "r")
    assert len(processes_of_run(run.path)) == 2
    owner.kill()
    owner.communicate()
    wait_until(lambda: not processes_of_run(run.path), "the processes of the run to end")


def test_reaper_spares_the_owner_that_dismisses_it(tmp_path: Path) -> None:
    owner, run = start_owner(tmp_path / "r")
    output, _ = owner.communicate("\n", timeout=60)
    assert int(output) != 0
    assert owner.returncode == 0
    assert processes_of_run(run.path) == []
