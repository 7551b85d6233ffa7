"""The comparison of the API with its document: what it calls right, and a small run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.conformance.report import ConformanceReport, judge, read_report
from loadtests.conformance.running import find_schemathesis, run
from tests.compatibility.conftest import api_url, service

__all__ = ["api_url", "service"]  # fixtures

RIGHT = ConformanceReport(
    num_cases=120,
    counts={"POST /v1/audio/transcriptions 200 text/vtt": 3, "GET /healthz 200 x": 2},
    complete=True,
    failures=(),
    errors=(),
)


def test_run_without_faults_is_right() -> None:
    line, right = judge(RIGHT, 100)
    assert right
    assert "120 cases (at least 100 wanted), 3 of them transcribed, 0 faults" in line


@pytest.mark.parametrize(
    "report",
    [
        None,
        replace(RIGHT, num_cases=99),
        replace(RIGHT, counts={"GET /healthz 200 x": 2}),
        replace(RIGHT, complete=False),
        replace(RIGHT, failures=("Server error",)),
        replace(RIGHT, errors=("Network error",)),
    ],
)
def test_anything_else_is_not(report: ConformanceReport | None) -> None:
    assert not judge(report, 100)[1]


def test_report_is_read(tmp_path: Path) -> None:
    report, counts = tmp_path / "report.json", tmp_path / "counts.json"
    content = {
        "test_cases": {"generated": 7},
        "complete": True,
        "failures": [{"title": "Server error"}],
        "errors": [],
    }
    report.write_text(json.dumps(content), encoding="utf-8")
    assert read_report(report, counts) is None
    counts.write_text(json.dumps({"GET /healthz 200 x": 7}), encoding="utf-8")
    read = read_report(report, counts)
    assert read == ConformanceReport(7, {"GET /healthz 200 x": 7}, True, ("Server error",), ())


def test_api_answers_as_it_documents(api_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    command = find_schemathesis()
    if command is None:
        pytest.skip("schemathesis is missing: pip install -e '.[conformance]'")
    exit_code = run(command, api_url, num_cases=100, seed=0, max_minutes=4)
    assert exit_code == 0, capfd.readouterr().out
