"""When a request is given up."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from serve_app.core.errors import DeadlineExceeded, InvalidParameter

TIMEOUT_HEADER = "X-Paraserve-Timeout-S"


@dataclass(frozen=True, slots=True)
class Deadline:
    """Counts from the request's arrival; its upload and its time in line count.

    Attributes:
        timeout_s: how long the request may take.
        at: monotonic time at which it is given up.
        unix: the same as Unix time, for other machines.
    """

    timeout_s: float
    at: float = field(init=False)
    unix: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", time.monotonic() + self.timeout_s)
        object.__setattr__(self, "unix", time.time() + self.timeout_s)

    def remaining_s(self) -> float:
        return max(self.at - time.monotonic(), 0.0)

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Gives up what is awaited in the block when the time has come.

        Raises:
            DeadlineExceeded: it has.
        """
        try:
            async with asyncio.timeout(self.remaining_s()) as timeout:
                yield
        except DeadlineExceeded:
            # From a stage that was sooner to notice and does not know the limit.
            raise DeadlineExceeded(self.timeout_s) from None
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded(self.timeout_s) from None


def deadline_of(header: str | None, default_s: float, max_s: float) -> Deadline:
    """Returns the deadline of a request that has just arrived.

    Args:
        header: what the caller asks for.
        default_s: without it.
        max_s: the longest that may be asked for.

    Raises:
        InvalidParameter: the header is not a number of seconds in range.
    """
    if header is None:
        return Deadline(default_s)
    try:
        timeout_s = float(header)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s <= max_s:
        raise InvalidParameter(TIMEOUT_HEADER, f"must be seconds, above 0 and at most {max_s:g}")
    return Deadline(timeout_s)
