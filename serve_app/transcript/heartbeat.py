"""Signs of life of a stream whose items may be far apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

ItemT = TypeVar("ItemT")


async def beating(source: AsyncGenerator[ItemT], every_s: float) -> AsyncGenerator[ItemT | None]:
    """Yields the items of `source`, and None whenever none has come for `every_s`.

    Leaving early closes the source.
    """
    async with aclosing(source):
        while True:
            step = asyncio.ensure_future(anext(source))
            try:
                while not (await asyncio.wait((step,), timeout=every_s))[0]:
                    yield None
            finally:
                if not step.done():
                    step.cancel()
                    # The source is closed only after the step has let go of it.
                    await asyncio.wait((step,))
            try:
                item = step.result()
            except StopAsyncIteration:
                return
            yield item
