"""Open loops, which send when a request is due, and closed ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import httpx
import pytest

from loadtests.harness.arrivals import MIXES, Arrival
from loadtests.harness.clips import ClipLibrary
from loadtests.harness.loops import Probe, joined, open_loop, probe, send_arrivals, times
from loadtests.harness.requests import Attempt, Caller, Fate, Outcome, Request, Retries
from loadtests.overload import capacity

Answer = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]

ERROR = {"error": {"message": "", "type": "rate_limit_error", "param": None, "code": "busy"}}
REFUSAL = httpx.Response(429, json=ERROR, headers={"Retry-After": "1"})


@pytest.fixture
def library(tmp_path: Path) -> ClipLibrary:
    return ClipLibrary(tmp_path)


def caller(answer: Answer) -> Caller:
    return Caller("http://service", transport=httpx.MockTransport(answer))


async def sent(
    library: ClipLibrary,
    answer: Answer,
    *at_s: float,
    retries: Retries = Retries(),  # noqa: B008, frozen
    grace_s: float = 5.0,
) -> list[Outcome]:
    arrivals = [Arrival(time_s, 3.0) for time_s in at_s]
    texts = {library.clip(3.0): "right"}
    async with caller(answer) as service:
        return await send_arrivals(
            service, library, arrivals, texts, retries=retries, grace_s=grace_s
        )


async def right(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"text": "right"})


async def refuse(request: httpx.Request) -> httpx.Response:
    return REFUSAL


async def test_outcomes_are_in_the_order_of_arrivals(library: ClipLibrary) -> None:
    outcomes = await sent(library, right, 0.0, 0.01, 0.02)
    due_s = [outcome.due_s - outcomes[0].due_s for outcome in outcomes]
    assert due_s == pytest.approx([0.0, 0.01, 0.02])
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


async def test_unanswered_request_is_unfinished_after_the_grace(library: ClipLibrary) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    (outcome,) = await sent(library, never, 0.0, grace_s=0.05)
    assert (outcome.fate, outcome.lost) == (Fate.UNFINISHED, True)


async def test_error_of_the_sender_is_raised() -> None:
    async def fail(number: int, due_s: float) -> None:
        raise LookupError("nothing to kill")

    with pytest.raises(LookupError, match="nothing to kill"):
        await open_loop([0.0], fail)


async def test_refused_request_is_repeated_only_on_request(library: ClipLibrary) -> None:
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


def attempt(fate: Fate, retry_after_s: float | None = None) -> Attempt:
    return Attempt(fate, 0.0, 0.0, None, 429, retry_after_s)


def test_pause_is_the_retry_after_of_the_refusal() -> None:
    refusal = attempt(Fate.REFUSED, 17.0)
    assert Retries(refusals=True).pause_s(refusal, 1) == 17.0
    assert Retries(refusals=True, max_attempts=2).pause_s(refusal, 2) is None


def test_refusal_without_a_usable_time_is_followed_by_a_short_pause() -> None:
    assert Retries(refusals=True).pause_s(attempt(Fate.REFUSED), 1) == 0.5


def test_pauses_after_breaks_grow_up_to_a_bound() -> None:
    retries = Retries(breaks=True)
    pauses = [retries.pause_s(attempt(Fate.BROKEN), number) or 0.0 for number in range(1, 8)]
    longest = (0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
    assert all(
        most_s / 2 <= pause_s <= most_s for pause_s, most_s in zip(pauses, longest, strict=True)
    )


@pytest.mark.parametrize("fate", [Fate.RIGHT, Fate.WRONG, Fate.PARTIAL, Fate.FAILED])
def test_answer_of_the_service_is_final(fate: Fate) -> None:
    assert Retries(refusals=True, breaks=True).pause_s(attempt(fate), 1) is None


def test_failure_is_repeated_only_where_it_is_asked_for() -> None:
    assert Retries(failures=True).pause_s(attempt(Fate.FAILED), 1) is not None


async def test_probe_times_only_right_answers() -> None:
    answers = iter([right, refuse, right])

    async def answer(request: httpx.Request) -> httpx.Response:
        return await next(answers)(request)

    async with caller(answer) as service:
        measured = await probe(service, Request(b"", "right"), times(3), pause_s=0.0)
    assert (len(measured.latencies_s), measured.num_refused, measured.num_other) == (2, 1, 0)
    assert measured.median_s > 0


async def test_wrong_answer_is_no_refusal() -> None:
    async with caller(right) as service:
        measured = await probe(service, Request(b"", "another"), times(2), pause_s=0.0)
    assert (len(measured.latencies_s), measured.num_refused, measured.num_other) == (0, 0, 2)


def test_probes_are_joined() -> None:
    probes = [
        Probe((0.1,), 0, 0, 1.0, 3.0),
        Probe((0.2, 0.3), 1, 1, 2.0, 1.0),
        Probe((0.4,), 0, 0, 9.0, 2.0),
    ]
    assert joined(probes) == Probe((0.1, 0.2, 0.3, 0.4), 1, 1, 2.0, 2.0)


def test_machine_that_became_slower_is_not_held_against_the_service() -> None:
    before, after = Probe((0.1,), yardstick_s=0.01), Probe((0.2,), yardstick_s=0.02)
    assert after.slowdown_from(before) == pytest.approx(1.0)


async def test_capacity_counts_right_answers_per_second(library: ClipLibrary) -> None:
    texts = {library.clip(3.0): "right"}
    async with caller(right) as service:
        per_s, audio_per_s = await capacity(service, library, texts, MIXES["clips"], 0.2)
    assert audio_per_s == pytest.approx(3.0 * per_s)


async def test_service_without_capacity_is_reported(library: ClipLibrary) -> None:
    texts = {library.clip(3.0): "right"}
    async with caller(refuse) as service:
        with pytest.raises(ValueError, match="nothing right"):
            await capacity(service, library, texts, MIXES["clips"], 0.1)
