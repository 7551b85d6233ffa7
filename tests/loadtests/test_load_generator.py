"""The open loop: sent when due, retried when allowed, bounded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path

import httpx
import pytest

from loadtests.load.arrivals import Arrival
from loadtests.load.clips import ClipLibrary
from loadtests.load.generator import Bounds, Generator, Load, Retries
from loadtests.load.outcomes import Attempt, Fate, Outcome

Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]

REFUSAL = {"error": {"message": "", "type": "rate_limit_error", "param": None, "code": "busy"}}


@pytest.fixture
def library(tmp_path: Path) -> ClipLibrary:
    return ClipLibrary(tmp_path)


async def sent(
    library: ClipLibrary,
    answer: Answer,
    *at_s: float,
    keys: tuple[str, ...] = (),
    retries: Retries = Retries(),  # noqa: B008, frozen
    grace_s: float = 5.0,
) -> list[Outcome]:
    arrivals = [Arrival(time_s, 3.0, number) for number, time_s in enumerate(at_s)]
    load = Load(arrivals, {library.clip(3.0): "right"}, keys, retries=retries)
    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await Generator(client, library, load, Bounds(grace_s=grace_s)).run()


async def right(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"text": "right"})


async def test_outcomes_are_in_the_order_of_arrivals(library: ClipLibrary) -> None:
    outcomes = await sent(library, right, 0.0, 0.01, 0.02)
    assert [outcome.arrival.key for outcome in outcomes] == [0, 1, 2]
    assert {outcome.fate for outcome in outcomes} == {Fate.RIGHT}


async def test_slow_answers_do_not_hold_back_later_requests(library: ClipLibrary) -> None:
    underway = asyncio.Event()
    num_underway = 0

    async def wait_for_all(request: httpx.Request) -> httpx.Response:
        nonlocal num_underway
        num_underway += 1
        if num_underway == 5:
            underway.set()
        await underway.wait()
        return await right(request)

    outcomes = await sent(library, wait_for_all, 0.0, 0.01, 0.02, 0.03, 0.04)
    # The first one had to wait until the last one was due, and that is its latency.
    assert outcomes[0].complete_s >= 0.04
    assert all(outcome.fate is Fate.RIGHT for outcome in outcomes)


async def test_requests_rotate_among_the_keys(library: ClipLibrary) -> None:
    seen: list[str] = []

    async def note(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["Authorization"])
        return await right(request)

    await sent(library, note, 0.0, 0.02, 0.04, keys=("a", "b"))
    assert seen == ["Bearer a", "Bearer b", "Bearer a"]


async def test_unanswered_request_is_unfinished_after_the_grace(library: ClipLibrary) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    (outcome,) = await sent(library, never, 0.0, grace_s=0.05)
    assert (outcome.fate, outcome.lost) == (Fate.UNFINISHED, True)


async def test_refused_request_is_repeated_only_on_request(library: ClipLibrary) -> None:
    async def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, json=REFUSAL, headers={"Retry-After": "1"})

    (outcome,) = await sent(library, refuse, 0.0)
    assert len(outcome.attempts) == 1


async def test_broken_request_is_repeated_under_its_own_id(library: ClipLibrary) -> None:
    ids: list[str] = []

    async def break_once(request: httpx.Request) -> httpx.Response:
        ids.append(request.headers["X-Request-ID"])
        if len(ids) == 1:
            raise httpx.ReadError("reset", request=request)
        return await right(request)

    (outcome,) = await sent(library, break_once, 0.0, retries=Retries(breaks=True))
    assert [tried.fate for tried in outcome.attempts] == [Fate.BROKEN, Fate.RIGHT]
    assert ids[0] == ids[1]
    assert not outcome.lost


def test_pause_is_the_retry_after_of_the_refusal() -> None:
    refusal = Attempt(Fate.REFUSED, 0.0, 429, 17.0)
    assert Retries(refusals=True).pause_s(refusal, 1) == 17.0
    assert Retries(refusals=True, max_attempts=2).pause_s(refusal, 2) is None


def test_refusal_without_a_usable_time_is_followed_by_a_short_pause() -> None:
    refusals = [Attempt(Fate.REFUSED, 0.0, 429, seconds) for seconds in (None, math.nan)]
    assert [Retries(refusals=True).pause_s(refusal, 1) for refusal in refusals] == [0.5, 0.5]


def test_pauses_after_breaks_grow_up_to_a_bound() -> None:
    broken = Attempt(Fate.BROKEN, 0.0)
    pauses = [Retries(breaks=True).pause_s(broken, number) for number in range(1, 8)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize("fate", [Fate.RIGHT, Fate.WRONG, Fate.PARTIAL, Fate.FAILED])
def test_answer_of_the_service_is_final(fate: Fate) -> None:
    assert Retries(refusals=True, breaks=True).pause_s(Attempt(fate, 0.0), 1) is None
