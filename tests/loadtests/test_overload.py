"""What the overload run calls a promise kept."""

from __future__ import annotations

import pytest

from loadtests.harness.loops import Probe
from loadtests.harness.report import Report
from loadtests.harness.requests import Attempt, Fate, Outcome
from loadtests.harness.watch import History, Sample
from loadtests.overload import check, show_memory
from tests.loadtests.conftest import kept

MIB = 2**20
BEFORE = Probe((0.1, 0.1, 0.2), cpu_s=0.05)


def outcome(fate: Fate, retry_after_s: float | None = None) -> Outcome:
    return Outcome(3.0, 0.0, (Attempt(fate, 0.0, 1.0, None, None, retry_after_s),))


GOOD = [outcome(Fate.RIGHT), outcome(Fate.REFUSED, 5.0)]


def checked(
    report: Report, outcomes: list[Outcome], *, growth_mib: int = 0, after: Probe = BEFORE
) -> list[bool]:
    check(report, outcomes, growth_mib * MIB, BEFORE, after)
    return kept(report)


def test_good_run_keeps_every_promise(report: Report) -> None:
    assert checked(report, GOOD) == [True] * 4


@pytest.mark.parametrize("fate", [Fate.WRONG, Fate.BROKEN, Fate.FAILED, Fate.PARTIAL])
def test_accepted_and_not_answered_breaks_the_first(fate: Fate, report: Report) -> None:
    assert checked(report, [*GOOD, outcome(fate)]) == [False, True, True, True]


@pytest.mark.parametrize(
    "other",
    [
        outcome(Fate.REFUSED),
        outcome(Fate.REFUSED, 1000.0),
        outcome(Fate.REJECTED),
        outcome(Fate.UNAVAILABLE),
    ],
)
def test_bad_refusal_breaks_the_second(other: Outcome, report: Report) -> None:
    assert checked(report, [*GOOD, other]) == [True, False, True, True]


def test_no_refusal_at_all_was_no_overload(report: Report) -> None:
    assert checked(report, GOOD[:1])[1] is False


def test_growth_in_the_last_third_breaks_the_third(report: Report) -> None:
    assert checked(report, GOOD, growth_mib=33) == [True, True, False, True]


@pytest.mark.parametrize(
    "after", [Probe((0.13,) * 3), Probe((0.1,) * 3, 1), Probe((0.1,) * 3, 0, 1)]
)
def test_slower_than_before_breaks_the_fourth(after: Probe, report: Report) -> None:
    assert checked(report, GOOD, after=after) == [True, True, True, False]


def test_memory_is_shown_in_thirds_of_the_load(report: Report) -> None:
    samples = [Sample(float(at_s), (at_s + 1) * MIB, 0) for at_s in range(9)]
    no_process = -1
    show_memory(report, {no_process: History("ray::Replica", samples)}, 0.0, 9.0)
    assert report.tables[-1].rows == [("ray::Replica", None, 3.0, 6.0, 9.0, None)]
