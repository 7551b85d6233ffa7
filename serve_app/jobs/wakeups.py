"""How those who wait for jobs hear of new ones without asking the database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol
from weakref import WeakKeyDictionary

import asyncpg

_LOG = logging.getLogger(__name__)

_SHORTEST_CHECK_S = 0.1
_LONGEST_CHECK_S = 1.0
_DEAF_WAIT_S = 5.0
"""While nobody listens, jobs are looked for as often."""
_PING_INTERVAL_S = 60.0
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0)


class Wakeups(Protocol):
    """Announcements of jobs and messages."""

    def wake(self) -> None:
        """Wakes all tasks of this process that wait."""

    async def wait(self, timeout_s: float) -> None:
        """Returns after an announcement, or after the time."""

    async def close(self) -> None: ...


class _Signal:
    """Wakes all that wait, and each that did not wait for it the next time that it does."""

    def __init__(self) -> None:
        self._number = 0
        self._next = asyncio.Event()
        self._is_missed = False
        self._seen: WeakKeyDictionary[asyncio.Task[object], int] = WeakKeyDictionary()

    def send(self) -> None:
        self._number += 1
        self._is_missed = True
        self._next.set()
        # Whoever waits holds the old one, which stays set.
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Returns what the next signal sets; it is set already if this task has missed one."""
        task = asyncio.current_task()
        seen = None if task is None else self._seen.get(task)
        # Of a task that waits for the first time nobody knows what it has seen.
        if self._is_missed if seen is None else seen != self._number:
            missed = asyncio.Event()
            missed.set()
            return missed
        return self._next

    def seen(self) -> None:
        """Remembers that this task is about to look."""
        self._is_missed = False
        if (task := asyncio.current_task()) is not None:
            self._seen[task] = self._number


class FileWakeups:
    """Announcements of SQLite: other processes' by the changes of a file.

    Looking at the size and the time of a file is no query, and costs microseconds.

    Args:
        path: the database's write-ahead log; each commit appends to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._signal = _Signal()

    def wake(self) -> None:
        self._signal.send()

    async def wait(self, timeout_s: float) -> None:
        signal = self._signal.next()
        deadline = asyncio.get_running_loop().time() + timeout_s
        check_s = _SHORTEST_CHECK_S
        while not signal.is_set():
            if self._has_changed():
                # The others that wait will not see it.
                self._signal.send()
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0 or await _is_set_within(signal, min(check_s, left_s)):
                break
            check_s = min(2 * check_s, _LONGEST_CHECK_S)
        self._signal.seen()

    async def close(self) -> None:
        return None

    def _has_changed(self) -> bool:
        try:
            state = self._path.stat()
        except OSError:
            seen = None
        else:
            seen = (state.st_size, state.st_mtime_ns)
        has_changed, self._seen = seen != self._seen, seen
        return has_changed


class NotifyWakeups:
    """Announcements of PostgreSQL, by LISTEN on a connection of its own.

    Args:
        connect: opens a connection.
        channel: of NOTIFY.

    Attributes:
        is_listening: whether the connection stands.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], channel: str) -> None:
        self._connect = connect
        self._channel = channel
        self._signal = _Signal()
        self.is_listening = False
        self._listener: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._signal.send()

    async def wait(self, timeout_s: float) -> None:
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen(), name="jobs-listener")
        limit_s = timeout_s if self.is_listening else min(timeout_s, _DEAF_WAIT_S)
        await _is_set_within(self._signal.next(), limit_s)
        self._signal.seen()

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    async def _listen(self) -> None:
        num_failures = 0
        while True:
            try:
                connection = await self._connect()
                try:
                    await connection.add_listener(self._channel, lambda *_: self.wake())
                    num_failures = 0
                    self.is_listening = True
                    # What was announced before is not heard.
                    self.wake()
                    await self._until_lost(connection)
                finally:
                    self.is_listening = False
                    connection.terminate()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
                _LOG.warning("no notifications of jobs: %s", type(error).__name__)
            self.wake()
            await asyncio.sleep(_RECONNECT_S[min(num_failures, len(_RECONNECT_S) - 1)])
            num_failures += 1

    async def _until_lost(self, connection: asyncpg.Connection) -> None:
        """Returns once the connection is lost; a silent one is tried now and then."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        while not await _is_set_within(lost, _PING_INTERVAL_S):
            await connection.execute("SELECT 1")


async def _is_set_within(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
