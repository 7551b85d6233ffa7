"""Console output: never truncated in pipes, never interpreted as markup."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

FAILED, PARTIAL = 1, 3
"""Exit codes: something failed; all was done, but parts of a recording have no text."""

_PIPE_WIDTH = 10_000
"""Columns when the output is not a terminal, so that nothing is truncated or wrapped."""

_STYLES = {"error": "red", "failed": "red", "partial": "yellow", "warning": "yellow"}


def use_utf8() -> None:
    """Makes the standard streams write UTF-8 in every locale, and file names unchanged."""
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors=errors)


def console_for(stream: TextIO | None = None) -> Console:
    """Returns a console on a stream, by default on standard output."""
    stream = stream or sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    # Text such as `paraserve[ops]` must not be taken for markup.
    return Console(file=stream, width=width, soft_wrap=True, highlight=False, markup=False)


def note(message: str, console: Console) -> None:
    """Writes a dimmed line about progress."""
    console.print(Text(message, style="dim"), soft_wrap=True)


def tell(kind: str, message: str, console: Console | None = None) -> None:
    """Writes a line such as `error: ...` to standard error.

    Args:
        kind: error, failed, partial or warning.
        message: plain text, without markup.
        console: to write to; standard error by default.
    """
    console = console or console_for(sys.stderr)
    text = Text(f"{kind}: ", style=_STYLES[kind])
    text.append(message, style="default")
    console.print(text, soft_wrap=True)
