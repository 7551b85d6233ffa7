"""The schedule of kills and what is made of the outcomes."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from loadtests.chaos.__main__ import judge, main, show
from loadtests.chaos.kills import Death, Kill, Target, plan_kills
from loadtests.harness.report import Report
from loadtests.harness.requests import Attempt, Fate, Outcome
from tests.loadtests.conftest import kept

BEGAN_S = 1000.0


def planned(number: int = 24, seed: int = 1) -> list[Kill]:
    return plan_kills(number, 300.0, random.Random(seed))


def outcome(*attempts: tuple[Fate, float]) -> Outcome:
    tries = tuple(
        Attempt(fate, BEGAN_S, BEGAN_S + ended_s, detail="why") for fate, ended_s in attempts
    )
    return Outcome(3.0, BEGAN_S, tries)


def death(target: Target, at_s: float) -> Death:
    return Death(target, 1, BEGAN_S + at_s, True)


def rows(report: Report, *outcomes: Outcome, deaths: tuple[Death, ...] = ()) -> dict[str, Any]:
    """Returns the number of requests by what became of them."""
    show(report, outcomes, deaths)
    return {str(row[0]): row[1] for row in report.tables[-1].rows}


def test_same_seed_kills_the_same() -> None:
    assert planned() == planned()
    assert planned() != planned(seed=2)


def test_kills_come_in_order_while_the_load_lasts() -> None:
    times = [kill.at_s for kill in planned()]
    assert times == sorted(times)
    assert 5.0 <= times[0] < times[-1] <= 285.0


def test_every_kind_is_killed() -> None:
    assert {kill.target for kill in planned(len(Target))} == set(Target)


def test_two_dozen_kills_have_their_shares() -> None:
    counts = Counter(kill.target for kill in planned())
    assert counts[Target.RECOGNIZER] == counts[Target.SEGMENTER] == 6
    assert counts[Target.NODE] == 2


def test_no_time_for_kills_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 20 s"):
        plan_kills(5, 20.0, random.Random(1))


@pytest.mark.parametrize("arguments", [["--duration", "20"], ["--kills", "0"]])
def test_arguments_are_refused_before_anything_is_started(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "longer than 20 s" in capsys.readouterr().err


def test_break_that_the_client_mended_is_counted_and_not_lost(report: Report) -> None:
    outcomes = (outcome((Fate.BROKEN, 5.0), (Fate.RIGHT, 7.0)),)
    found = rows(report, *outcomes)
    assert found["connections broken under a client"] == found["sent again by the client"] == 1
    assert (found["answered right"], found["lost"]) == (1, 0)
    judge(report, outcomes, 1, 1)
    assert kept(report) == [True, True]


@pytest.mark.parametrize(
    "fate", [Fate.WRONG, Fate.PARTIAL, Fate.FAILED, Fate.BROKEN, Fate.UNFINISHED, Fate.UNAVAILABLE]
)
def test_run_does_not_hold_with_anything_but_right_answers(fate: Fate, report: Report) -> None:
    judge(report, [outcome((Fate.RIGHT, 1.0)), outcome((fate, 1.0))], 1, 1)
    assert kept(report) == [False, True]


def test_run_does_not_hold_with_too_few_kills(report: Report) -> None:
    judge(report, [outcome((Fate.RIGHT, 1.0))], 19, 20)
    assert kept(report) == [True, False]


def test_requests_refused_to_the_end_do_not_count_as_lost(report: Report) -> None:
    outcomes = (outcome((Fate.REFUSED, 1.0), (Fate.REFUSED, 9.0)),)
    found = rows(report, *outcomes)
    assert (found["refused to the end"], found["accepted"]) == (1, 0)
    judge(report, outcomes, 1, 1)
    assert kept(report) == [True, True]


def test_wrong_is_not_counted_as_lost_too(report: Report) -> None:
    found = rows(report, outcome((Fate.WRONG, 1.0)), outcome((Fate.FAILED, 1.0)))
    assert (found["wrong"], found["lost"]) == (1, 1)


def test_break_is_blamed_on_the_last_kill_before_it(report: Report) -> None:
    deaths = (death(Target.SEGMENTER, 1.0), death(Target.INGRESS, 10.0), death(Target.NODE, 50.0))
    broken = outcome((Fate.BROKEN, 11.0), (Fate.BROKEN, 45.0), (Fate.RIGHT, 60.0))
    rows(report, broken, deaths=deaths)
    assert {row[0]: row[2] for row in report.tables[0].rows if row[2]} == {"ingress": 1}


def test_slowest_answer_is_the_one_running_at_the_kill(report: Report) -> None:
    outcomes = [outcome((Fate.RIGHT, 4.0)), outcome((Fate.RIGHT, 9.0)), outcome((Fate.RIGHT, 7.0))]
    rows(report, *outcomes, deaths=(death(Target.NODE, 5.0),))
    assert {row[0]: row[3] for row in report.tables[0].rows}["node"] == "9.0"


def test_every_failed_request_is_reported(report: Report) -> None:
    rows(report, outcome((Fate.FAILED, 12.0)), deaths=(death(Target.RECOGNIZER, 10.0),))
    assert report.tables[-1].notes[-1] == (
        "3 s of audio, failed (why) in attempt 1, after the kill of a recognizer"
    )
