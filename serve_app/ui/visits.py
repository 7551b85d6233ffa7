"""Who has the page open: what runs for somebody who leaves is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Visits:
    """The runs of each open page, by the name that Gradio gives it. For one event loop."""

    def __init__(self) -> None:
        self._runs: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def run(self, visit: str) -> Iterator[asyncio.Event]:
        """Yields an event that is set when the visitor leaves."""
        left = asyncio.Event()
        self._runs.setdefault(visit, set()).add(left)
        try:
            yield left
        finally:
            self._runs[visit].discard(left)
            if not self._runs[visit]:
                del self._runs[visit]

    def leave(self, visit: str) -> None:
        """Tells the visitor's runs that nobody waits for them any more."""
        for left in self._runs.get(visit, ()):
            left.set()
