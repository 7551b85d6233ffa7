"""Every load test is one command, and each starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.__main__ import COMMANDS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtests", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_command_explains_itself_by_its_own_name(name: str) -> None:
    found = run(name, "--help")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(f"usage: python -m loadtests {name}")


def test_without_a_name_all_commands_are_listed() -> None:
    found = run()
    assert found.returncode == 2
    assert all(f"  {name} " in found.stdout for name in COMMANDS)


def test_every_front_door_is_listed() -> None:
    folder = ROOT / "loadtests"
    doors = {path.parent.name for path in folder.glob("*/__main__.py")}
    doors |= {
        path.stem
        for path in folder.glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text("utf-8")
    }
    assert {name.replace("_", "-") for name in doors - {"__main__"}} == set(COMMANDS)


def test_damage_runs_at_its_smallest_size() -> None:
    found = run("damage", "--cases", "3", "--seed", "1")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("what", ["engine", "stages", "length"])
def test_bench_runs_at_its_smallest_size(what: str, tmp_path: Path) -> None:
    size = ("--seconds", "3", "--repeats", "1", "--max-minutes", "0.1", "--out", str(tmp_path))
    found = run("bench", what, *size)
    assert found.returncode == 0, found.stdout + found.stderr
    assert (tmp_path / f"{what}.json").is_file()
