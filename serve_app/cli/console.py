"""What the commands write to people: never cut in pipes, never taken for markup."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

FAILED, PARTIAL = 1, 3
"""Exit codes: something could not be done; all was, but parts of a recording have no text."""

_PIPE_WIDTH = 10_000
"""Columns where nobody looks: nothing is cut or wrapped."""

DEMO_WARNING = (
    "a built-in demo model is running. It knows made-up office sentences in synthetic voices "
    "only; real recordings come out as nonsense. For real ones: --profile paraformer-large"
)

_STYLES = {"error": "red", "failed": "red", "partial": "yellow", "warning": "yellow"}


def use_utf8() -> None:
    """Has the standard streams write UTF-8 whatever the locale; file names pass as they are."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)


def console_for(stream: TextIO | None = None) -> Console:
    """Returns a console on a stream; standard output unless given."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(file=stream, width=width, soft_wrap=True, highlight=False)


def note(message: str, console: Console) -> None:
    """Writes a line of plain text that nobody has to read."""
    console.print(Text(message, style="dim"), soft_wrap=True)


def tell(kind: str, message: str, console: Console | None = None) -> None:
    """Writes a line such as `error: ...` to standard error.

    Args:
        kind: error, failed, partial or warning.
        message: plain text; brackets in it stay.
        console: instead of one on standard error.
    """
    console = console or console_for(sys.stderr)
    text = Text(f"{kind}: ", style=_STYLES[kind])
    text.append(message, style="default")
    console.print(text, soft_wrap=True)
