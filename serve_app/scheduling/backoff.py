"""How long to wait before a failed call is made again.

`Backoff` is the one policy for calls that are repeated: a wait strategy for tenacity, or plain
arithmetic where a loop has reasons of its own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tenacity import RetryCallState

_MAX_DOUBLINGS = 16  # keeps the power small; the longest pause comes much earlier


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double, up to a bound.

    Half of each is random, so that calls that failed together do not come back together.

    Attributes:
        first_s: longest pause after the first failure, in s.
        longest_s: bound of all pauses, in s.
    """

    first_s: float = 0.5
    longest_s: float = 10.0

    def pause_s(self, num_failures: int) -> float:
        """Returns the pause after so many failures in a row, at least 1, in s."""
        num_doublings = min(max(num_failures - 1, 0), _MAX_DOUBLINGS)
        upper_s = min(self.first_s * 2.0**num_doublings, self.longest_s)
        return upper_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret

    def __call__(self, state: RetryCallState) -> float:
        return self.pause_s(state.attempt_number)
