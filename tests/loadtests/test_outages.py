"""What the loss of a process is said to have cost."""

from __future__ import annotations

from loadtests.load.outcomes import Attempt, Fate
from loadtests.outages import Sent, outage, outage_table


def sent(began_s: float, *attempts: tuple[Fate, float]) -> Sent:
    return Sent(began_s, tuple(Attempt(fate, ended_s) for fate, ended_s in attempts))


def test_request_answered_by_the_second_retry_is_within_two() -> None:
    patient = sent(1.0, (Fate.UNAVAILABLE, 1.0), (Fate.BROKEN, 1.5), (Fate.RIGHT, 2.6))
    found = outage("haproxy", [patient, sent(2.0, (Fate.RIGHT, 2.1))], 0)
    assert (found.num_sent, found.num_right, found.num_beyond_default) == (2, 2, 0)
    assert (found.num_repeated, found.longest_s, found.refused_s) == (2, 1.6, 0.5)
    assert "slowest: 0.0 s unavailable ; 0.5 s broken ; 1.6 s right" in found.text()


def test_request_that_took_three_retries_would_have_failed_by_default() -> None:
    attempts = [(Fate.UNAVAILABLE, float(number)) for number in range(3)]
    found = outage("raylet", [sent(0.0, *attempts, (Fate.RIGHT, 4.0))], 1)
    assert (found.num_right, found.num_beyond_default, found.restarts) == (1, 1, 1)


def test_request_that_was_never_answered_right_counts_against_both() -> None:
    found = outage("agent", [sent(0.0, (Fate.WRONG, 0.2))], 0)
    assert (found.num_right, found.num_beyond_default) == (0, 1)
    assert "failed with two retries" in outage_table([found]).text()
