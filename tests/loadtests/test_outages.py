"""What the loss of a process is said to have cost."""

from __future__ import annotations

from typing import Any

from loadtests.harness.report import Report
from loadtests.harness.requests import Attempt, Fate
from loadtests.outages import COLUMNS, add_outage, judge
from tests.loadtests.conftest import kept


def attempts(began_s: float, *ended: tuple[Fate, float]) -> list[Attempt]:
    return [Attempt(fate, began_s, ended_s) for fate, ended_s in ended]


def row(report: Report, *requests: list[Attempt], restarts: int = 0) -> dict[str, Any]:
    report.table("Outages", COLUMNS)
    add_outage(report, "haproxy", requests, restarts)
    return dict(zip(COLUMNS, report.tables[-1].rows[-1], strict=True))


def test_request_answered_by_the_second_retry_is_within_two(report: Report) -> None:
    patient = attempts(1.0, (Fate.UNAVAILABLE, 1.0), (Fate.BROKEN, 1.5), (Fate.RIGHT, 2.6))
    found = row(report, patient, attempts(2.0, (Fate.RIGHT, 2.1)))
    assert (found["sent"], found["right"], found["failed with two retries"]) == (2, 2, 0)
    assert (found["repeated"], found["longest s"], found["refused s"]) == (2, "1.6", "0.5")
    slowest = "slowest: 0.0 s unavailable ; 0.5 s broken ; 1.6 s right"
    assert slowest in report.tables[-1].notes[-1]
    judge(report)
    assert kept(report) == [True]


def test_request_that_took_three_retries_would_have_failed_by_default(report: Report) -> None:
    tries = [(Fate.UNAVAILABLE, float(number)) for number in range(3)]
    found = row(report, attempts(0.0, *tries, (Fate.RIGHT, 4.0)), restarts=1)
    assert (found["right"], found["failed with two retries"], found["restarts"]) == (1, 1, 1)


def test_request_that_was_never_answered_right_counts_against_both(report: Report) -> None:
    found = row(report, attempts(0.0, (Fate.WRONG, 0.2)))
    assert (found["right"], found["failed with two retries"]) == (0, 1)
    judge(report)
    assert kept(report) == [False]
