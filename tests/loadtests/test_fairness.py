"""What the fairness run calls fair."""

from __future__ import annotations

import pytest

from loadtests.fairness import judge
from loadtests.harness.loops import Probe
from loadtests.harness.report import Report
from loadtests.harness.requests import Attempt, Fate
from tests.loadtests.conftest import kept

ALONE = Probe((0.1,) * 60)
RIGHT = [Attempt(Fate.RIGHT, 0.0, 60.0)] * 4


def test_twice_the_time_is_fair(report: Report) -> None:
    judge(report, ALONE, Probe((0.2,) * 60), RIGHT)
    assert kept(report) == [True, True, True]
    assert report.promises[0].found == "2.00"


def test_more_than_twice_is_not(report: Report) -> None:
    judge(report, ALONE, Probe((0.21,) * 60), RIGHT)
    assert kept(report) == [False, True, True]


@pytest.mark.parametrize("beside", [Probe((0.1,) * 59, 1), Probe((0.1,) * 59, 0, 1)])
def test_clip_that_was_not_answered_is_not_fair(beside: Probe, report: Report) -> None:
    judge(report, ALONE, beside, RIGHT)
    assert kept(report) == [True, False, True]


def test_starved_long_file_is_not_fair(report: Report) -> None:
    failed = Attempt(Fate.FAILED, 0.0, 60.0, status=504, detail="deadline_exceeded")
    judge(report, ALONE, ALONE, [*RIGHT, failed])
    assert kept(report) == [True, True, False]
    assert report.promises[-1].found == "4 right; failed, deadline_exceeded"


def test_run_in_which_no_long_file_ended_proves_nothing(report: Report) -> None:
    judge(report, ALONE, ALONE, [])
    assert kept(report) == [True, True, False]


def test_run_without_an_answer_proves_nothing(report: Report) -> None:
    judge(report, Probe(()), Probe(()), RIGHT)
    assert kept(report)[0] is False
