"""Sends every request when it is due and collects what became of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from loadtests.load.arrivals import Arrival
from loadtests.load.clips import Clip, ClipLibrary
from loadtests.load.outcomes import Attempt, Fate, Outcome
from loadtests.load.sending import Request, attempt

_CONNECT_TIMEOUT_S = 10.0
# Shorter than the proxy keeps idle connections, so that no request meets one that
# the proxy is just closing.
_KEEPALIVE_S = 2.0
_FIRST_PAUSE_S = 0.5
_LONGEST_TOLD_S = 60.0
"""The longest Retry-After that OpenAI's clients heed."""
_LONGEST_PAUSE_S = 8.0


@dataclass(frozen=True, slots=True)
class Retries:
    """Which attempts are followed by another one; none by default.

    Attributes:
        refusals: whether a 429 is, after its Retry-After.
        breaks: whether a broken connection or an absent service is, after a growing
            pause, as OpenAI's clients do.
        max_attempts: in all.
    """

    refusals: bool = False
    breaks: bool = False
    max_attempts: int = 10

    def pause_s(self, tried: Attempt, num_attempts: int) -> float | None:
        """Returns how long to wait before the next attempt, None for no further one."""
        if num_attempts >= self.max_attempts:
            return None
        told_s = tried.retry_after_s
        if told_s is not None and not math.isfinite(told_s):
            told_s = None
        if tried.fate is Fate.REFUSED and self.refusals:
            return told_s or _FIRST_PAUSE_S
        if tried.fate in {Fate.BROKEN, Fate.UNAVAILABLE} and self.breaks:
            growing_s = _FIRST_PAUSE_S * 2.0 ** (num_attempts - 1)
            if told_s is not None and 0 < told_s <= _LONGEST_TOLD_S:
                return told_s
            return min(_LONGEST_PAUSE_S, growing_s)
        return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a run never exceeds.

    Attributes:
        max_connections: at once; requests beyond wait in the generator, and that wait
            is part of their latency.
        grace_s: how long after the last arrival answers are waited for.
        timeout_s: without a byte in either direction.
    """

    max_connections: int = 256
    grace_s: float = 120.0
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a run sends.

    Attributes:
        arrivals: in order of time.
        texts: the right answer to each recording.
        api_keys: by the number of the key; empty to send none.
        stream: whether answers are asked for as server-sent events.
        retries: what is tried again.
    """

    arrivals: Sequence[Arrival]
    texts: Mapping[Clip, str]
    api_keys: tuple[str, ...] = ()
    stream: bool = False
    retries: Retries = Retries()


def open_client(url: str, bounds: Bounds) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=bounds.max_connections,
        max_keepalive_connections=bounds.max_connections,
        keepalive_expiry=_KEEPALIVE_S,
    )
    timeout = httpx.Timeout(bounds.timeout_s, connect=_CONNECT_TIMEOUT_S, pool=None)
    return httpx.AsyncClient(base_url=url, limits=limits, timeout=timeout, trust_env=False)


class Generator:
    """One run against one service.

    Args:
        client: of `open_client`.
        library: where the recordings come from.
        load: what to send.
        bounds: of the run.
    """

    def __init__(
        self, client: httpx.AsyncClient, library: ClipLibrary, load: Load, bounds: Bounds
    ) -> None:
        self._client = client
        self._load = load
        self._bounds = bounds
        self._clips = [library.clip(arrival.audio_s) for arrival in load.arrivals]
        self._contents = {clip: library.path(clip).read_bytes() for clip in set(self._clips)}
        self._attempts: list[list[Attempt]] = [[] for _ in load.arrivals]
        self._outcomes: dict[int, Outcome] = {}
        self.began_s = 0.0
        """When the run began, on the monotonic clock."""

    def now(self) -> float:
        """Seconds since the run began."""
        return asyncio.get_running_loop().time() - self.began_s

    async def run(self) -> list[Outcome]:
        """Returns what became of each arrival, in their order."""
        self.began_s = asyncio.get_running_loop().time()
        tasks: list[asyncio.Task[None]] = []
        try:
            for number, arrival in enumerate(self._load.arrivals):
                await asyncio.sleep(arrival.at_s - self.now())
                tasks.append(asyncio.create_task(self._send(number)))
            if tasks:
                await asyncio.wait(tasks, timeout=self._bounds.grace_s)
        finally:
            for task in tasks:
                task.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [self._outcome(number) for number in range(len(self._load.arrivals))]

    async def _send(self, number: int) -> None:
        arrival, clip = self._load.arrivals[number], self._clips[number]
        late_s = self.now() - arrival.at_s
        keys = self._load.api_keys
        request = Request(
            self._contents[clip],
            self._load.texts[clip],
            keys[arrival.key % len(keys)] if keys else None,
            self._load.stream,
        )
        attempts = self._attempts[number]
        while True:
            tried, first_byte_at_s = await attempt(self._client, request, self.now)
            attempts.append(tried)
            pause_s = self._load.retries.pause_s(tried, len(attempts))
            if pause_s is None:
                break
            await asyncio.sleep(pause_s)
        first_byte_s = None if first_byte_at_s is None else first_byte_at_s - arrival.at_s
        self._outcomes[number] = Outcome(
            arrival,
            clip.audio_s,
            tuple(attempts),
            late_s,
            first_byte_s,
            tried.ended_s - arrival.at_s,
        )

    def _outcome(self, number: int) -> Outcome:
        done = self._outcomes.get(number)
        if done is not None:
            return done
        arrival, now_s = self._load.arrivals[number], self.now()
        attempts = (*self._attempts[number], Attempt(Fate.UNFINISHED, now_s))
        audio_s = self._clips[number].audio_s
        return Outcome(arrival, audio_s, attempts, 0.0, None, now_s - arrival.at_s)
