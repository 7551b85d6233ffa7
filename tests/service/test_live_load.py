"""Live transcription's load tests and command, at their smallest size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loadtests.live.__main__ import main
from loadtests.live.alignment import differences
from serve_app.cli.main import app
from tests.service.conftest import SAMPLES

pytestmark = pytest.mark.ray


def report_of(command: str, path: Path, *options: str) -> dict[str, Any]:
    """Returns the report of a run that came to its end."""
    main([command, *options, "--out", str(path)])
    report: dict[str, Any] = json.loads((path / f"live-{command}.json").read_text())
    assert report["complete"]
    assert all(table["rows"] for table in report["tables"])
    return report


def kept(report: dict[str, Any]) -> dict[str, bool]:
    return {one["promise"]: one["kept"] for one in report["promises"]}


def test_capacity_is_looked_for(service_url: str, tmp_path: Path) -> None:
    report = report_of("capacity", tmp_path, "--url", service_url, "--seconds", "5", "--most", "1")
    assert report["tables"][0]["rows"][0][:3] == ["as it is", 1, 0]


def test_clips_and_sessions_lose_nothing_beside_each_other(
    service_url: str, tmp_path: Path
) -> None:
    size = ("--sessions", "2", "--seconds", "6", "--clips", "2", "--rounds", "1")
    found = kept(report_of("beside", tmp_path, "--url", service_url, *size))
    assert found["no session ends early"]
    assert found["no character lost or doubled"]
    assert found["deltas joined are the final text"]


def test_command_captions_a_recording(service_url: str) -> None:
    arguments = ["live", str(SAMPLES / "clip.flac"), "--url", service_url, "--speed", "4"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    spoken = json.loads((SAMPLES / "clip.json").read_text(encoding="utf-8"))[0]["text"]
    found = differences(spoken, result.stdout)
    assert (found.num_lost, found.num_doubled, found.num_added) == (0, 0, 0)
