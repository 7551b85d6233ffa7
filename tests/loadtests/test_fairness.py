"""What the fairness run calls fair."""

from __future__ import annotations

from loadtests.fairness import Background, Fairness, judge
from loadtests.load.outcomes import Attempt, Fate
from loadtests.load.probing import Probe, joined

ALONE = Probe((0.1,) * 60, 0, 0.05)
RIGHT = [Attempt(Fate.RIGHT, 60.0)] * 4


def test_twice_the_time_is_fair() -> None:
    found = Fairness(ALONE, Probe((0.2,) * 60, 0, 0.05), Background(4, RIGHT))
    table, fair = judge(found, 4)
    assert fair
    assert "p95 beside / alone: 2.00 (target: at most 2)" in table.notes


def test_more_than_twice_is_not() -> None:
    found = Fairness(ALONE, Probe((0.21,) * 60, 0, 0.05), Background(4, RIGHT))
    assert not judge(found, 4)[1]


def test_clip_that_was_not_answered_is_not_fair() -> None:
    found = Fairness(ALONE, Probe((0.1,) * 59, 1, 0.05), Background(4, RIGHT))
    assert not judge(found, 4)[1]


def test_starved_long_file_is_not_fair() -> None:
    ended = [*RIGHT, Attempt(Fate.FAILED, 60.0, 504, detail="deadline_exceeded")]
    table, fair = judge(Fairness(ALONE, ALONE, Background(4, ended)), 4)
    assert not fair
    assert "a long file: failed, deadline_exceeded" in table.notes


def test_run_in_which_no_long_file_ended_proves_nothing() -> None:
    assert not judge(Fairness(ALONE, ALONE, Background(4)), 4)[1]


def test_probes_are_joined() -> None:
    probes = [
        Probe((0.1,), 0, 1.0, 3.0),
        Probe((0.2, 0.3), 1, 2.0, 1.0),
        Probe((0.4,), 0, 9.0, 2.0),
    ]
    assert joined(probes) == Probe((0.1, 0.2, 0.3, 0.4), 1, 2.0, 2.0)
