"""Transcribes an upload and yields the page's updates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TypeVar

from serve_app.client import ClientError
from serve_app.ui.client import ApiClient, problem_of
from serve_app.ui.events import Submission
from serve_app.ui.results import Json, ShownResult
from serve_app.ui.uploads import UploadLost, UploadStore

SHOW_PERIOD_S = 0.25
"""Shortest time between two updates of the page."""

_T = TypeVar("_T")


async def transcribe_upload(
    client: ApiClient,
    uploads: UploadStore,
    session: str,
    submission: Submission,
    left: asyncio.Event,
) -> AsyncGenerator[Json]:
    """Yields what to show; closing it closes the request. The upload is deleted in any case.

    Args:
        client: of the API.
        uploads: where the upload is kept.
        session: page that claimed the upload.
        submission: the upload, the key and the options.
        left: set when the visitor has left, which ends the transcription.
    """
    result = ShownResult(submission.run)
    key = submission.key.strip()
    try:
        with uploads.taken(session, submission.upload) as file:
            yield result.shown()
            events = client.transcribe(file, submission.order, key)
            async with aclosing(gathered(events, SHOW_PERIOD_S, left)) as batches:
                async for batch in batches:
                    for event in batch:
                        result.add(event)
                    yield result.shown()
    except UploadLost:
        result.fail("upload_lost")
        yield result.shown()
        return
    except ClientError as refusal:
        problem = problem_of(refusal, with_key=bool(key))
        result.fail(problem, refusal.message, refusal.retry_after_s)
        yield result.shown()
        return
    if result.state != "done" and not left.is_set():
        result.fail("interrupted")
        yield result.shown()


async def gathered(
    events: AsyncGenerator[_T], period_s: float, stop: asyncio.Event
) -> AsyncGenerator[list[_T]]:
    """Yields the events in batches, the first at once, further ones at most every period.

    It ends with the events, or when `stop` is set.

    Raises:
        Exception: what the events raise, after the events before it.
    """
    loop = asyncio.get_running_loop()
    batch: list[_T] = []
    due = loop.time()
    stopping = asyncio.ensure_future(stop.wait())
    waiting = asyncio.ensure_future(_next(events))
    try:
        while True:
            timeout = max(0.0, due - loop.time()) if batch else None
            await asyncio.wait(
                {waiting, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if stopping.done():
                return
            if waiting.done():
                if waiting.exception() is not None or not waiting.result():
                    break
                batch += waiting.result()
                waiting = asyncio.ensure_future(_next(events))
            if batch and loop.time() >= due:
                yield batch
                batch, due = [], loop.time() + period_s
        if batch:
            yield batch
        waiting.result()
    finally:
        stopping.cancel()
        waiting.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await waiting
        await events.aclose()


async def _next(events: AsyncGenerator[_T]) -> list[_T]:
    """Returns the next event, alone in a list, or none at the end."""
    async for event in events:
        return [event]
    return []
