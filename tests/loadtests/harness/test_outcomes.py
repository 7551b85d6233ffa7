"""Fates, percentiles and the sums over them."""

from __future__ import annotations

import pytest

from loadtests.harness.requests import (
    Attempt,
    Fate,
    Outcome,
    Percentiles,
    attempts_of,
    audio_s_per_s,
    bad_refusals,
    count,
    percentiles,
)


def outcome(*fates: Fate, at_s: float = 0.0, audio_s: float = 3.0, took_s: float = 1.0) -> Outcome:
    attempts = tuple(Attempt(fate, at_s, at_s + took_s) for fate in fates)
    return Outcome(audio_s, at_s, attempts)


@pytest.mark.parametrize("fate", [Fate.WRONG, Fate.FAILED, Fate.BROKEN, Fate.UNFINISHED])
def test_accepted_without_the_right_answer_is_lost(fate: Fate) -> None:
    assert outcome(fate).accepted
    assert outcome(fate).lost


@pytest.mark.parametrize("fate", [Fate.REFUSED, Fate.REJECTED, Fate.UNAVAILABLE])
def test_refused_is_not_lost(fate: Fate) -> None:
    assert not outcome(fate).accepted
    assert not outcome(fate).lost


def test_refused_after_it_was_accepted_once_is_lost() -> None:
    assert outcome(Fate.BROKEN, Fate.REFUSED).lost


def test_broken_and_then_answered_is_not_lost() -> None:
    answered = outcome(Fate.BROKEN, Fate.UNAVAILABLE, Fate.RIGHT)
    assert (answered.fate, answered.lost) == (Fate.RIGHT, False)


def test_partial_is_counted_by_itself() -> None:
    assert not outcome(Fate.PARTIAL).lost
    assert count([outcome(Fate.PARTIAL), outcome(Fate.RIGHT)], Fate.PARTIAL) == 1


def test_every_attempt_is_found() -> None:
    found = attempts_of([outcome(Fate.REFUSED, Fate.REFUSED, Fate.RIGHT)], Fate.REFUSED)
    assert len(found) == 2


@pytest.mark.parametrize("seconds", [None, 0.0, 301.0])
def test_refusal_without_a_usable_time_is_bad(seconds: float | None) -> None:
    assert bad_refusals([Attempt(Fate.REFUSED, 0.0, 0.0, None, 429, seconds)], 300.0)


@pytest.mark.parametrize("seconds", [1.0, 300.0])
def test_refusal_within_bounds_is_good(seconds: float) -> None:
    assert not bad_refusals([Attempt(Fate.REFUSED, 0.0, 0.0, None, 429, seconds)], 300.0)


def test_percentiles_of_a_hundred_and_one() -> None:
    assert percentiles([float(number) for number in range(101)]) == Percentiles(50, 95, 99)


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles([]) == Percentiles(None, None, None)


def test_throughput_counts_only_right_answers() -> None:
    outcomes = [
        outcome(Fate.RIGHT, at_s=10.0, audio_s=60.0, took_s=2.0),
        outcome(Fate.RIGHT, at_s=14.0, audio_s=20.0, took_s=6.0),
        outcome(Fate.WRONG, at_s=10.0, audio_s=1000.0, took_s=50.0),
    ]
    assert audio_s_per_s(outcomes) == pytest.approx(8.0)


def test_throughput_is_zero_without_a_correct_answer() -> None:
    assert audio_s_per_s([outcome(Fate.WRONG)]) == 0.0
