"""The service with live transcription on, and a number of sessions with it."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loadtests.live.results import LiveResult
from loadtests.live.speakers import run_speakers
from loadtests.live.talks import TalkLibrary
from loadtests.serving import check_local, serving

_START_LIMIT_S = 180.0
SETTINGS = ("live.enabled=true", "live.max_sessions=1000")


@contextmanager
def live_service(options: argparse.Namespace, *assignments: str) -> Iterator[str]:
    """Yields the URL of the service that was named, or of one that runs for the block.

    Args:
        options: with `url`, None for a service of its own, and `set`.
        assignments: further settings of its own service.

    Raises:
        RemoteRefused: the URL is not on this machine.
    """
    if options.url is not None:
        check_local(options.url)
        yield options.url
        return
    with serving(*SETTINGS, *assignments, *options.set) as process:
        yield process.url


async def measure(url: str, num_sessions: int, audio_s: float) -> LiveResult:
    """Returns what so many sessions at once were told, of audio of about that length."""
    return LiveResult(await run_speakers(url, TalkLibrary().talks(num_sessions, audio_s)))


def warm_up(url: str) -> None:
    """Has short sessions, whose times do not count, until one is told its text.

    Raises:
        TimeoutError: none is within minutes.
    """
    ends_s = time.monotonic() + _START_LIMIT_S
    while (result := asyncio.run(measure(url, 1, 1.0))).problems:
        if time.monotonic() > ends_s:
            raise TimeoutError(result.problems[0])
        time.sleep(1)
