"""Tries a call again when the replica that had it dies.

All calls between the stages are idempotent: the same input gives the same result on
any replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ray.exceptions import RayActorError

from serve_app.deployments.options import LOGGER

ResultT = TypeVar("ResultT")

_FIRST_DELAY_S = 0.5


async def call_until_answered(
    call: Callable[[], Awaitable[ResultT]], *, max_attempts: int, stage: str, request_id: str
) -> ResultT:
    """Returns the call's result; a dead replica costs another attempt.

    Args:
        call: makes the call anew each time.
        max_attempts: calls in all, at least 1.
        stage: who is called, for the log.
        request_id: whose request it is, for the log.

    Raises:
        RayActorError: the replica died in the last attempt, too.
        Exception: what the call itself raised.
    """
    for attempt in range(1, max_attempts):
        try:
            return await call()
        except RayActorError:
            await pause_after_death(attempt, stage, request_id)
    return await call()


async def pause_after_death(attempt: int, stage: str, request_id: str) -> None:
    """Logs a death and waits, longer each time, for a replica that lives."""
    LOGGER.warning(
        "replica died, trying another",
        extra={"paraserve_request_id": request_id, "stage": stage, "attempt": attempt},
    )
    await asyncio.sleep(_FIRST_DELAY_S * 2 ** (attempt - 1))
