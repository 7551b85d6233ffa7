"""What the overload run calls a promise kept."""

from __future__ import annotations

import pytest

from loadtests.load.arrivals import Arrival
from loadtests.load.capacity import Capacity
from loadtests.load.memory import History, Sample
from loadtests.load.outcomes import Attempt, Fate, Outcome
from loadtests.load.probing import Probe
from loadtests.overload import Overload, check, max_growth_bytes, memory_table

MIB = 2**20


def outcome(fate: Fate, retry_after_s: float | None = None) -> Outcome:
    attempts = (Attempt(fate, 1.0, None, retry_after_s),)
    return Outcome(Arrival(0.0, 3.0), 3.0, attempts, 0.0, 0.5, 1.0)


def history(*own_mib: int) -> History:
    """One sample a second, from second 0."""
    samples = [Sample(float(at_s), value * MIB, 0) for at_s, value in enumerate(own_mib)]
    return History("ray::Replica", samples)


def kept(
    outcomes: list[Outcome], *, own_mib: tuple[int, ...] = (50,) * 9, after_s: float = 0.1
) -> list[bool]:
    found = Overload(
        Capacity(10.0, 100.0),
        outcomes,
        [history(*own_mib)],
        0.0,
        9.0,
        Probe((0.1, 0.1, 0.2), 0, 0.05),
        Probe((after_s,) * 3, 0, 0.05),
    )
    return [each.kept for each in check(found, 300.0)]


GOOD = [outcome(Fate.RIGHT), outcome(Fate.REFUSED, 5.0)]


def test_good_run_keeps_every_promise() -> None:
    assert kept(GOOD) == [True] * 4


@pytest.mark.parametrize("fate", [Fate.WRONG, Fate.BROKEN, Fate.FAILED, Fate.PARTIAL])
def test_accepted_and_not_answered_breaks_the_first(fate: Fate) -> None:
    assert kept([*GOOD, outcome(fate)]) == [False, True, True, True]


@pytest.mark.parametrize(
    "other",
    [
        outcome(Fate.REFUSED),
        outcome(Fate.REFUSED, 1000.0),
        outcome(Fate.REJECTED),
        outcome(Fate.UNAVAILABLE),
    ],
)
def test_bad_refusal_breaks_the_second(other: Outcome) -> None:
    assert kept([*GOOD, other]) == [True, False, True, True]


def test_no_refusal_at_all_was_no_overload() -> None:
    assert kept(GOOD[:1])[1] is False


def test_growth_in_the_last_third_breaks_the_third() -> None:
    assert kept(GOOD, own_mib=(10, 20, 30, 50, 50, 50, 60, 70, 83)) == [True, True, False, True]


def test_growth_before_the_last_third_is_warming_up() -> None:
    assert max_growth_bytes([history(0, 0, 0, 500, 900, 900, 900, 900, 901)], 0.0, 9.0) == MIB


def test_process_that_came_late_has_no_growth() -> None:
    late = History("late", [Sample(8.0, 900 * MIB, 0)])
    assert max_growth_bytes([late], 0.0, 9.0) == 0


def test_slower_than_before_breaks_the_fourth() -> None:
    assert kept(GOOD, after_s=0.13) == [True, True, True, False]


def test_memory_is_shown_in_thirds_of_the_load() -> None:
    table = memory_table([history(1, 2, 3, 4, 5, 6, 7, 8, 9)], 0.0, 9.0)
    assert table.rows == (("ray::Replica", "-", "3.0", "6.0", "9.0", "0.0"),)


def test_machine_that_became_slower_is_not_held_against_the_service() -> None:
    before, after = Probe((0.1,), 0, 0.05, 0.01), Probe((0.2,), 0, 0.05, 0.02)
    assert after.slowdown_from(before) == pytest.approx(1.0)
