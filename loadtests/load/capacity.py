"""How much a service takes when a fixed number of clients never pauses (closed loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from loadtests.load.clips import Clip, ClipLibrary
from loadtests.load.mixes import Mix
from loadtests.load.outcomes import Fate
from loadtests.load.sending import Request, attempt

_REFUSED_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was answered right, per second."""

    requests_per_s: float
    audio_s_per_s: float


async def measure_capacity(
    client: httpx.AsyncClient,
    library: ClipLibrary,
    texts: Mapping[Clip, str],
    mix: Mix,
    *,
    seconds: float,
    num_workers: int,
    seed: int = 1,
) -> Capacity:
    """Keeps `num_workers` requests in flight for a while.

    A refusal is followed by a short pause, whatever its Retry-After says: the
    service is to be kept full.

    Raises:
        ValueError: nothing was answered right.
    """
    dice = random.Random(seed)  # noqa: S311, nothing secret
    clock = asyncio.get_running_loop().time
    contents = {
        length.audio_s: library.path(library.clip(length.audio_s)).read_bytes()
        for length in mix.classes
    }
    began_s = clock()
    answered: list[tuple[float, float]] = []

    async def work() -> None:
        while clock() - began_s < seconds:
            audio_s = mix.draw(dice)
            clip = library.clip(audio_s)
            tried, _ = await attempt(client, Request(contents[audio_s], texts[clip]), clock)
            if tried.fate is Fate.RIGHT:
                answered.append((tried.ended_s, clip.audio_s))
            else:
                await asyncio.sleep(_REFUSED_PAUSE_S)

    async with asyncio.TaskGroup() as workers:
        for _ in range(num_workers):
            workers.create_task(work())
    if not answered:
        raise ValueError("the service answered nothing right")
    elapsed_s = max(ended_s for ended_s, _ in answered) - began_s
    audio_s = sum(length_s for _, length_s in answered)
    return Capacity(len(answered) / elapsed_s, audio_s / elapsed_s)
