from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from serve_app.ui.sessions import SessionLimits, Sessions, SessionUnknown, TooManyRequests
from serve_app.ui.visitors import Visitor

ONE, OTHER = Visitor("one"), Visitor("other")
LIMITS = SessionLimits(
    max_open=3,
    max_open_per_visitor=2,
    max_known=4,
    max_streams_per_session=2,
    events_per_s=1,
    max_events_at_once=2,
    wait_s=0.01,
)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def forgotten() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(forgotten: list[str], clock: Clock) -> Sessions:
    return Sessions(LIMITS, forgotten.append, clock)


def test_open_pages_are_bounded_for_each_and_in_all(sessions: Sessions) -> None:
    with ExitStack() as stack:
        for name in ("a", "b"):
            stack.enter_context(sessions.open(ONE, name))
        with pytest.raises(TooManyRequests), sessions.open(ONE, "c"):
            pass
        stack.enter_context(sessions.open(OTHER, "d"))
        with pytest.raises(TooManyRequests), sessions.open(Visitor("third"), "e"):
            pass
    with sessions.open(ONE, "c"):
        pass


def test_oldest_closed_page_is_forgotten_and_no_open_one(
    sessions: Sessions, forgotten: list[str]
) -> None:
    with sessions.open(ONE, "open"):
        for name in "abcde":
            with sessions.open(OTHER, name):
                pass
        assert forgotten == ["a", "b"]


def test_streams_of_a_page_are_bounded_and_its_own(sessions: Sessions) -> None:
    with sessions.open(ONE, "a"):
        with pytest.raises(SessionUnknown), sessions.stream(OTHER, "a"):
            pass
        with (
            sessions.stream(ONE, "a"),
            sessions.stream(ONE, "a"),
            pytest.raises(TooManyRequests),
            sessions.stream(ONE, "a"),
        ):
            pass
        with sessions.open(ONE, "a"), pytest.raises(TooManyRequests), sessions.open(ONE, "a"):
            pass


def test_stream_of_a_closed_page_counts_as_an_open_page(sessions: Sessions) -> None:
    with sessions.open(ONE, "a"):
        pass
    with (
        sessions.open(ONE, "b"),
        sessions.open(ONE, "c"),
        pytest.raises(TooManyRequests),
        sessions.stream(ONE, "a"),
    ):
        pass


async def test_events_of_a_visitor_are_bounded_in_time(sessions: Sessions, clock: Clock) -> None:
    with sessions.open(ONE, "a"), sessions.open(OTHER, "b"):
        for _ in range(2):
            await sessions.admit_event(ONE, "a")
        with pytest.raises(TooManyRequests):
            await sessions.admit_event(ONE, "a")
        await sessions.admit_event(OTHER, "b")
        clock.now_s += 1
        await sessions.admit_event(ONE, "a")
        with pytest.raises(TooManyRequests):
            sessions.count_event(ONE)


async def test_event_waits_for_its_page_to_open(forgotten: list[str]) -> None:
    sessions = Sessions(SessionLimits(), forgotten.append)
    event = asyncio.create_task(sessions.admit_event(ONE, "a"))
    await asyncio.sleep(0)
    with sessions.open(OTHER, "b"):
        await asyncio.sleep(0)
        assert not event.done()
    with sessions.open(ONE, "a"):
        await event


async def test_event_of_a_page_that_never_opens_is_refused(sessions: Sessions) -> None:
    with pytest.raises(SessionUnknown):
        await sessions.admit_event(ONE, "a")
    with pytest.raises(SessionUnknown):
        sessions.count_event(ONE)


async def test_closed_page_may_still_send(sessions: Sessions) -> None:
    with sessions.open(ONE, "a"):
        pass
    await sessions.admit_event(ONE, "a")
