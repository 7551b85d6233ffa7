"""Waiting for what another process does."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 300.0
"""A machine with several clusters on two cores takes minutes for what takes seconds of one."""


def wait_until(
    condition: Callable[[], object],
    what: str | Callable[[], object] = "the condition",
    check: Callable[[], None] = lambda: None,
    limit_s: float = LIMIT_S,
    interval_s: float = 0.05,
) -> None:
    """Polls until the condition holds.

    Args:
        condition: What is asked.
        what: Its name in the error, or a function that tells how things are.
        check: Raises once the condition can no longer come true.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + limit_s
    while not condition():
        check()
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise TimeoutError(f"waited {limit_s:.0f} s for {told}")
        time.sleep(interval_s)
