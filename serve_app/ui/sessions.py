"""The open pages: their number, and the request rate of each visitor."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from serve_app.ui.visitors import Visitor


class SessionUnknown(Exception):
    """The page that sent this is not open (any more)."""


class TooManyRequests(Exception):
    """A visitor, or all of them together, asked for more than there is."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of the open pages.

    Attributes:
        max_open: pages of all visitors. Each holds two connections for as long as it is
            open, so twice this must stay below what the server takes at once.
        max_open_per_visitor: pages of one visitor.
        max_known: open pages and closed ones that are still remembered. Gradio drops the
            oldest of 2,000 message queues, whoever waits for it: must be less than that.
        max_streams_per_session: heartbeats of one page, and as many streams of its results; a
            new one may begin before the server has noticed the end of the last.
        events_per_s: that a visitor may send in the long run.
        max_events_at_once: that a visitor may send in a burst.
        wait_s: longest wait for a page's heartbeat, which begins together with its first event.
    """

    max_open: int = 768
    max_open_per_visitor: int = 16
    max_known: int = 1024
    max_streams_per_session: int = 4
    events_per_s: float = 2.0
    max_events_at_once: int = 60
    wait_s: float = 10.0


@dataclass(slots=True)
class _Session:
    visitor: str
    num_heartbeats: int = 0
    num_streams: int = 0

    @property
    def is_open(self) -> bool:
        return self.num_heartbeats > 0 or self.num_streams > 0


@dataclass(slots=True)
class _Allowance:
    num_sessions: int = 0
    num_events: float = 0.0
    at_s: float = 0.0


@dataclass(slots=True)
class Sessions:
    """The pages that are open, by the names that Gradio gives them. For one event loop.

    Attributes:
        limits: of them.
        forget: removes what Gradio keeps of a session.
        now_s: a clock.
    """

    limits: SessionLimits
    forget: Callable[[str], None]
    now_s: Callable[[], float] = time.monotonic
    _sessions: OrderedDict[str, _Session] = field(default_factory=OrderedDict)
    _allowances: dict[str, _Allowance] = field(default_factory=dict)
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def open(self, visitor: Visitor, session: str) -> Iterator[None]:
        """Counts a page as open while its heartbeat lasts.

        Raises:
            TooManyRequests: too many pages are open.
        """
        self._check_room(visitor, session)
        entry = self._remember(visitor, session)
        if entry.num_heartbeats >= self.limits.max_streams_per_session:
            raise TooManyRequests
        entry.num_heartbeats += 1
        self._opened.set()
        self._opened = asyncio.Event()
        try:
            yield
        finally:
            entry.num_heartbeats -= 1
            self._sessions.move_to_end(session)

    @contextmanager
    def stream(self, visitor: Visitor, session: str) -> Iterator[None]:
        """Counts a stream of results.

        Raises:
            SessionUnknown: this visitor has no such page.
            TooManyRequests: the page has too many streams, or too many pages are open.
        """
        entry = self._own(visitor, session)
        self._check_room(visitor, session)
        if entry.num_streams >= self.limits.max_streams_per_session:
            raise TooManyRequests
        entry.num_streams += 1
        try:
            yield
        finally:
            entry.num_streams -= 1

    async def admit_event(self, visitor: Visitor, session: str) -> None:
        """Counts an event of a page, which may be about to open.

        Raises:
            SessionUnknown: this visitor has no such page.
            TooManyRequests: the visitor sends too many events.
        """
        try:
            async with asyncio.timeout(self.limits.wait_s):
                while session not in self._sessions:
                    await self._opened.wait()
        except TimeoutError:
            raise SessionUnknown from None
        self._own(visitor, session)
        self.count_event(visitor)

    def count_event(self, visitor: Visitor) -> None:
        """Counts something that a visitor asks for.

        Raises:
            SessionUnknown: the visitor has no page.
            TooManyRequests: the visitor asks for too much.
        """
        allowance = self._allowances.get(visitor.id)
        if allowance is None:
            raise SessionUnknown
        now_s = self.now_s()
        allowance.num_events = min(
            float(self.limits.max_events_at_once),
            allowance.num_events + (now_s - allowance.at_s) * self.limits.events_per_s,
        )
        allowance.at_s = now_s
        if allowance.num_events < 1:
            raise TooManyRequests
        allowance.num_events -= 1

    def _check_room(self, visitor: Visitor, session: str) -> None:
        opened = [one for name, one in self._sessions.items() if one.is_open and name != session]
        num_own = sum(one.visitor == visitor.id for one in opened)
        if len(opened) >= self.limits.max_open or num_own >= self.limits.max_open_per_visitor:
            raise TooManyRequests

    def _own(self, visitor: Visitor, session: str) -> _Session:
        entry = self._sessions.get(session)
        if entry is None or entry.visitor != visitor.id:
            raise SessionUnknown
        return entry

    def _remember(self, visitor: Visitor, session: str) -> _Session:
        if session in self._sessions:
            return self._own(visitor, session)
        if len(self._sessions) >= self.limits.max_known:
            self._drop_oldest_closed()
        allowance = self._allowances.setdefault(
            visitor.id,
            _Allowance(num_events=self.limits.max_events_at_once, at_s=self.now_s()),
        )
        allowance.num_sessions += 1
        entry = self._sessions[session] = _Session(visitor.id)
        return entry

    def _drop_oldest_closed(self) -> None:
        # There always is one: fewer pages may be open than are remembered.
        name = next(name for name, one in self._sessions.items() if not one.is_open)
        dropped = self._sessions.pop(name)
        allowance = self._allowances[dropped.visitor]
        allowance.num_sessions -= 1
        if not allowance.num_sessions:
            del self._allowances[dropped.visitor]
        self.forget(name)
