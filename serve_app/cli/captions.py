"""How the text of a live session is shown: captions at a terminal, lines in a pipe, or JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from serve_app.client import LiveEvent, LiveFailure, LiveFinal, LivePartial

_REFRESHES_PER_S = 10
_INNER_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Captions:
    """A line for each segment that has ended.

    Args:
        console: to write to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left open."""

    def show(self, event: LiveEvent) -> None:
        if isinstance(event, LiveFinal) and event.text.strip():
            self._console.print(Text(event.text), soft_wrap=True)


class TerminalCaptions(Captions):
    """Finished segments stay; below them the text of those that are open grows."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._texts: dict[str, str] = {}
        self._live = Live(console=console, refresh_per_second=_REFRESHES_PER_S, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the text of segments that did not end."""
        self._live.stop()
        for text in self._texts.values():
            self._console.print(Text(text, style="dim"), soft_wrap=True)

    def show(self, event: LiveEvent) -> None:
        if isinstance(event, LivePartial):
            self._texts[event.item_id] = event.text
        elif isinstance(event, LiveFinal | LiveFailure):
            self._texts.pop(event.item_id, None)
        super().show(event)
        self._live.update(Text("\n".join(self._texts.values()), style="dim"))


class JsonCaptions(Captions):
    """A line of JSON for each event, with its kind as `event`."""

    def show(self, event: LiveEvent) -> None:
        kind = _INNER_CAPITAL.sub("_", type(event).__name__.removeprefix("Live")).lower()
        line = json.dumps({"event": kind, **asdict(event)}, ensure_ascii=False)
        self._console.print(Text(line), soft_wrap=True)


def captions_for(console: Console, *, as_json: bool) -> Captions:
    """Returns what fits the console."""
    if as_json:
        return JsonCaptions(console)
    return TerminalCaptions(console) if console.is_terminal else Captions(console)
