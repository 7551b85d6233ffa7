"""What became of a request, and of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from loadtests.load.arrivals import Arrival


class Fate(StrEnum):
    """How a request, or one attempt at it, ended."""

    RIGHT = "right"  # the whole text, and the right one
    PARTIAL = "partial"  # says itself that a part is missing
    WRONG = "wrong"  # another text than the idle service gave
    REFUSED = "refused"  # 429
    REJECTED = "rejected"  # any other 4xx
    FAILED = "failed"  # 5xx by the service, or an error event in a stream
    UNAVAILABLE = "unavailable"  # nobody took it: 503, or no connection
    BROKEN = "broken"  # no answer of ours: the connection ended, or the proxy answered
    UNFINISHED = "unfinished"  # no answer by the end of the run


_NOT_ACCEPTED = frozenset({Fate.REFUSED, Fate.REJECTED, Fate.UNAVAILABLE})
_LOST = frozenset({Fate.WRONG, Fate.FAILED, Fate.BROKEN, Fate.UNFINISHED})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request.

    Attributes:
        ended_s: since the start of the run.
        status: None if no status line came.
        retry_after_s: of the answer, None if it has none, NaN if it is not a number.
        detail: the error's code, or what the transport said.
    """

    fate: Fate
    ended_s: float
    status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request with all its attempts.

    Attributes:
        arrival: when it was due.
        audio_s: length of what was sent.
        attempts: at least one.
        sent_late_s: how long after its time the generator came to send it.
        first_byte_s: from its time to the first byte of the last answer's body, None without one.
        complete_s: from its time to the end of its last attempt.
    """

    arrival: Arrival
    audio_s: float
    attempts: tuple[Attempt, ...]
    sent_late_s: float
    first_byte_s: float | None
    complete_s: float

    @property
    def fate(self) -> Fate:
        return self.attempts[-1].fate

    @property
    def accepted(self) -> bool:
        """Whether the service took it in some attempt."""
        return any(attempt.fate not in _NOT_ACCEPTED for attempt in self.attempts)

    @property
    def lost(self) -> bool:
        """Whether it was accepted and never answered with its text.

        A partial answer is not lost: it says what is missing, and is counted as such.
        """
        return self.fate in _LOST or (self.accepted and self.fate in _NOT_ACCEPTED)


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of latencies in s; None if there are none."""

    p50: float | None
    p95: float | None
    p99: float | None


def percentiles(latencies_s: Sequence[float]) -> Percentiles:
    if not latencies_s:
        return Percentiles(None, None, None)
    p50, p95, p99 = np.percentile(np.asarray(latencies_s), [50, 95, 99]).tolist()
    return Percentiles(p50, p95, p99)


def count(outcomes: Iterable[Outcome], fate: Fate) -> int:
    return sum(outcome.fate is fate for outcome in outcomes)


def attempts_of(outcomes: Iterable[Outcome], fate: Fate) -> list[Attempt]:
    """Returns every attempt that ended so, whatever became of its request."""
    return [attempt for outcome in outcomes for attempt in outcome.attempts if attempt.fate is fate]


def bad_refusals(refusals: Iterable[Attempt], max_retry_after_s: float) -> list[Attempt]:
    """Returns the refusals that do not tell a usable time to come back."""
    return [
        refusal
        for refusal in refusals
        if refusal.retry_after_s is None or not 1 <= refusal.retry_after_s <= max_retry_after_s
    ]


def audio_s_per_s(outcomes: Iterable[Outcome]) -> float:
    """Audio that was answered right, per second from the first arrival to the last answer."""
    right = [outcome for outcome in outcomes if outcome.fate is Fate.RIGHT]
    if not right:
        return 0.0
    begin_s = min(outcome.arrival.at_s for outcome in right)
    end_s = max(outcome.arrival.at_s + outcome.complete_s for outcome in right)
    return sum(outcome.audio_s for outcome in right) / max(end_s - begin_s, 1e-9)
