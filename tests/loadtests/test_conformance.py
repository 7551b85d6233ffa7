"""The comparison of the API with its document: what it calls right, and a small run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.conformance.__main__ import Found, find_schemathesis, judge, main, read_found
from loadtests.harness.report import Report
from tests.compatibility.conftest import api_url, service

__all__ = ["api_url", "service"]  # fixtures

RIGHT = Found(
    num_cases=120,
    counts={"POST /v1/audio/transcriptions 200 text/vtt": 3, "GET /healthz 200 x": 2},
    complete=True,
    problems=(),
)


def test_run_without_faults_is_right(report: Report) -> None:
    judge(report, RIGHT, 100)
    assert [one.kept for one in report.promises] == [True, True]
    assert report.promises[0].found == "120, 3 of them transcribed"


@pytest.mark.parametrize(
    "found",
    [
        None,
        replace(RIGHT, num_cases=99),
        replace(RIGHT, counts={"GET /healthz 200 x": 2}),
        replace(RIGHT, complete=False),
        replace(RIGHT, problems=("Server error",)),
    ],
)
def test_anything_else_is_not(found: Found | None, report: Report) -> None:
    judge(report, found, 100)
    assert not all(one.kept for one in report.promises)


def test_report_is_read(tmp_path: Path) -> None:
    report, counts = tmp_path / "report.json", tmp_path / "counts.json"
    content = {
        "test_cases": {"generated": 7},
        "complete": True,
        "failures": [{"title": "Server error"}],
        "errors": [{"title": "Network error"}],
    }
    report.write_text(json.dumps(content), encoding="utf-8")
    assert read_found(report, counts) is None
    counts.write_text(json.dumps({"GET /healthz 200 x": 7}), encoding="utf-8")
    read = read_found(report, counts)
    assert read == Found(7, {"GET /healthz 200 x": 7}, True, ("Server error", "Network error"))


def test_api_answers_as_it_documents(
    api_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if find_schemathesis() is None:
        pytest.skip("schemathesis is missing: pip install -e '.[conformance]'")
    size = ["--cases", "100", "--max-minutes", "4", "--out", str(tmp_path)]
    assert main(["--url", api_url, *size]) == 0, capfd.readouterr().out
