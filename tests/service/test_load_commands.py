"""Load tests at their smallest size, against the service of the session."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import pytest

from loadtests import fairness, long_audio, overload
from loadtests.harness.report import Report
from loadtests.uploads.__main__ import judge, run
from loadtests.uploads.cases import KINDS
from serve_app.audio import AudioLimits

pytestmark = pytest.mark.ray


def promises(path: Path) -> dict[str, Any]:
    """Returns what a run that came to its end found, by promise."""
    report = json.loads(path.read_text())
    assert report["complete"]
    assert all(table["rows"] for table in report["tables"])
    return {one["promise"]: one for one in report["promises"]}


def test_overload_loses_nothing(service_url: str, tmp_path: Path) -> None:
    size = ["--capacity-s", "1", "--duration", "2", "--factor", "2", "--probes", "2"]
    overload.main(["--url", service_url, *size, "--out", str(tmp_path)])
    found = promises(tmp_path / "overload.json")
    assert found["accepted, then lost: 0"]["kept"]
    assert "memory of every process bounded" in found


def test_clips_and_long_files_are_answered_beside_each_other(
    service_url: str, tmp_path: Path
) -> None:
    size = ["--rounds", "1", "--clips", "2", "--files", "1", "--minutes", "1.5"]
    fairness.main(["--url", service_url, *size, "--out", str(tmp_path)])
    found = promises(tmp_path / "fairness.json")
    assert found["every clip answered right"]["kept"]
    assert found["every long file answered right"]["kept"]


def test_long_recording_is_the_repetition_of_its_parts(service_url: str, tmp_path: Path) -> None:
    size = ["--short-min", "1", "--long-min", "2"]
    long_audio.main(["--url", service_url, *size, "--out", str(tmp_path)])
    found = promises(tmp_path / "long-audio.json")
    assert found["the text is the concatenation of its parts"]["kept"]


def test_broken_uploads_are_answered_as_expected(
    service_url: str, spool_dir: Path, tmp_path: Path
) -> None:
    count = 12

    def kinds(seed: int) -> set[str]:
        return {random.Random(seed * 1_000_000 + i).choice(KINDS) for i in range(count)}

    # This service takes recordings of hours, which the bombs are.
    seed = next(number for number in range(1000) if "bombs" not in kinds(number))
    options = argparse.Namespace(
        count=count, seed=seed, max_minutes=4.0, out=tmp_path, command_line=["uploads"]
    )
    with Report("uploads", options) as report:
        judge(report, run(service_url, spool_dir, AudioLimits(), options, report), count)
    found = promises(tmp_path / "uploads.json")
    for promise in ("all sent in time", "no process dies", "no 5xx", "every answer as expected"):
        assert found[promise]["kept"], found[promise]["found"]
