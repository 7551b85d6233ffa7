"""Reads what a replica streams, and never waits for it in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from ray.serve.handle import DeploymentResponseGenerator

from serve_app.core.origin import Origin
from serve_app.deployments.retries import wait_s


async def stream_call(
    call: Callable[[], Any], origin: Origin, *, first_s: float | None, next_s: float | None
) -> AsyncGenerator[Any]:
    """Yields what a streaming call yields; leaving early cancels the call.

    Args:
        call: makes it.
        origin: whose request it is; the deadline bounds every wait.
        first_s: longest wait for the first item, which may include a wait for a replica.
        next_s: longest wait for each other item.

    Raises:
        TimeoutError: an item did not come in time.
        DeadlineExceeded: the request's deadline has passed.
    """
    patience_s = first_s
    responses = cast(DeploymentResponseGenerator[Any], call())
    try:
        while True:
            async with asyncio.timeout(wait_s(origin, patience_s)):
                try:
                    item = await anext(responses)
                except StopAsyncIteration:
                    return
            yield item
            patience_s = next_s
    finally:
        responses.cancel()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
