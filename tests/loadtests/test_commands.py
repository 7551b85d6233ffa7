"""Every load test is one command; each starts, and runs at its smallest size.

`overload`, `fairness`, `long-audio`, `uploads`, `load` and `attack` run against the service of
tests/service, `gpu` in tests/loadtests/gpu, `conformance` in test_conformance.py; what needs
minutes or several clusters at any size has its scenario in test_scenarios.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtests.__main__ import COMMANDS
from loadtests.simulation.__main__ import main as simulation
from loadtests.simulation.calibration import Spent
from loadtests.simulation.service_run import RealRun
from loadtests.simulation.stopwatch import BatchRecord
from serve_app.planning.costs import read_costs

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


def report_of(path: Path, found: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert found.returncode == 0, found.stdout + found.stderr
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["complete"]
    assert all(table["rows"] for table in content["tables"])
    return content


def test_damage_runs_at_its_smallest_size(tmp_path: Path) -> None:
    found = run("damage", "--cases", "3", "--seed", "1", "--out", str(tmp_path))
    assert len(report_of(tmp_path / "damage.json", found)["promises"]) == 4


@pytest.mark.parametrize(
    "what", ["engine", "voices", "labels", "stages", "loading", "growth", "length"]
)
def test_bench_runs_at_its_smallest_size(what: str, tmp_path: Path) -> None:
    size = ("--seconds", "3", "--repeats", "1", "--max-minutes", "0.1", "--out", str(tmp_path))
    report_of(tmp_path / f"{what}.json", run("bench", what, *size))


def test_simulator_is_timed_at_its_smallest_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert simulation(["speed", "--hours", "1"]) == 0
    report = json.loads((tmp_path / "bench-results" / "simulation-speed.json").read_text())
    assert len(report["tables"][0]["rows"]) == 1


def test_costs_of_a_profile_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert simulation(["measure", "--repeats", "1", "--out", "costs.json"]) == 0
    costs = read_costs(Path("costs.json"))
    assert costs.recognizer.unit_s > 0
    assert costs.start.replica_s > 0


def test_kept_run_is_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arrivals_s = [2.0 * number for number in range(48)]
    records = tuple(
        BatchRecord(1, at_s + 0.05 + 0.01 * (number % 3), at_s + 0.25, 0.2, 50, (at_s,))
        for number, at_s in enumerate(arrivals_s)
    )
    cpu_s = {"Recognizer": 9.0, "Segmenter": 5.0, "Punctuator": 2.0, "Ingress": 3.0}
    spent = Spent(100.0, cpu_s, 0.0, 0.0, (3.0,) * len(records), records)
    idle = dict.fromkeys(cpu_s, 0.001)
    latencies_s = (0.4,) * len(records)
    RealRun(tuple(arrivals_s), 0.0, latencies_s, spent, idle, 0.001, 1).keep(Path("trace.json"))
    simulation(["compare", "--kept", "trace.json"])
    report = json.loads(Path("bench-results/simulation-compare.json").read_text())
    assert report["complete"]
    assert [row[0] for row in report["tables"][0]["rows"]] == ["trace.json"]
    assert [row[0] for row in report["tables"][1]["rows"]] == ["p50", "p95"]


@pytest.mark.ray
@pytest.mark.parametrize(
    "command",
    [
        ("drain", "--requests", "4", "--longest", "120"),
        ("batch", "throughput", "--minutes", "1.5", "--rounds", "1"),
    ],
    ids=lambda command: command[0],
)
def test_command_with_a_cluster_of_its_own_runs(command: tuple[str, ...], tmp_path: Path) -> None:
    found = run(*command, "--out", str(tmp_path))
    # How fast a job is, is not asserted.
    assert found.returncode in (0, 1), found.stderr
    (path,) = tmp_path.glob("*.json")
    report = json.loads(path.read_text())
    assert report["complete"], found.stderr
    if command[0] == "drain":
        assert found.returncode == 0, found.stdout
