"""The schedule of kills and what is made of the outcomes."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.chaos.__main__ import main
from loadtests.chaos.kill_runner import Death
from loadtests.chaos.reports import ChaosReport, chaos_report, tables, write
from loadtests.chaos.schedule import Kill, Target, plan_kills
from loadtests.load.arrivals import Arrival
from loadtests.load.outcomes import Attempt, Fate, Outcome

BEGAN_S = 1000.0


def planned(number: int = 24, seed: int = 1) -> list[Kill]:
    return plan_kills(number, 300.0, random.Random(seed))


def outcome(*attempts: tuple[Fate, float]) -> Outcome:
    made = tuple(Attempt(fate, ended_s, detail="why") for fate, ended_s in attempts)
    return Outcome(Arrival(0.0, 3.0), 3.0, made, 0.0, None, attempts[-1][1])


def death(target: Target, at_s: float) -> Death:
    return Death(target, 1, BEGAN_S + at_s, True)


def report(*outcomes: Outcome, deaths: tuple[Death, ...] = ()) -> ChaosReport:
    return chaos_report(outcomes, deaths, BEGAN_S)


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
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "longer than 20 s" in capsys.readouterr().err


def test_break_that_the_client_mended_is_counted_and_not_lost() -> None:
    found = report(outcome((Fate.BROKEN, 5.0), (Fate.RIGHT, 7.0)))
    assert (found.num_breaks, found.num_retried, found.num_right, found.num_lost) == (1, 1, 1, 0)
    assert found.held


@pytest.mark.parametrize(
    "fate", [Fate.WRONG, Fate.PARTIAL, Fate.FAILED, Fate.BROKEN, Fate.UNFINISHED, Fate.UNAVAILABLE]
)
def test_run_does_not_hold_with_anything_but_right_answers(fate: Fate) -> None:
    assert not report(outcome((Fate.RIGHT, 1.0)), outcome((fate, 1.0))).held


def test_requests_refused_to_the_end_do_not_count_as_lost() -> None:
    found = report(outcome((Fate.REFUSED, 1.0), (Fate.REFUSED, 9.0)))
    assert (found.num_refused, found.num_accepted, found.held) == (1, 0, True)


def test_wrong_is_not_counted_as_lost_too() -> None:
    found = report(outcome((Fate.WRONG, 1.0)), outcome((Fate.FAILED, 1.0)))
    assert (found.num_wrong, found.num_lost) == (1, 1)


def test_break_is_blamed_on_the_last_kill_before_it() -> None:
    deaths = (death(Target.SEGMENTER, 1.0), death(Target.INGRESS, 10.0), death(Target.NODE, 50.0))
    broken = outcome((Fate.BROKEN, 11.0), (Fate.BROKEN, 45.0), (Fate.RIGHT, 60.0))
    blamed = report(broken, deaths=deaths).breaks_after
    assert {target: number for target, number in blamed.items() if number} == {"ingress": 1}


def test_slowest_answer_is_the_one_running_at_the_kill() -> None:
    deaths = (death(Target.NODE, 5.0),)
    outcomes = [outcome((Fate.RIGHT, 4.0)), outcome((Fate.RIGHT, 9.0)), outcome((Fate.RIGHT, 7.0))]
    assert report(*outcomes, deaths=deaths).slowest_s["node"] == 9.0


def test_every_failed_request_is_reported() -> None:
    found = report(outcome((Fate.FAILED, 12.0)), deaths=(death(Target.RECOGNIZER, 10.0),))
    assert found.errors == (
        "12.0 s: 3 s of audio, failed (why) in attempt 1, after the kill of a recognizer",
    )


def test_report_is_written_as_text_and_json(tmp_path: Path) -> None:
    found = report(outcome((Fate.RIGHT, 1.0)), deaths=(death(Target.NODE, 0.5),))
    path = write(found, tmp_path, "the command")
    assert json.loads(path.read_text())["kills"]["node"] == 1
    assert (tmp_path / "chaos.txt").read_text().startswith("the command\n")
    assert tables(found)[1].rows[0] == ("sent", 1)
