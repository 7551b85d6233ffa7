"""Text is printed as it is."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text
from typer.main import get_command

from serve_app.cli.console import console_for, note, tell
from serve_app.cli.main import app, main

HINT = "pip install 'paraserve[ops]'"


def test_brackets_are_printed_as_they_are() -> None:
    output = io.StringIO()
    console = console_for(output)
    console.print(HINT)
    console.print(HINT, style="yellow")
    note(HINT, console)
    tell("error", HINT, console)
    table = Table("hint [bold]")
    table.add_row(HINT)
    console.print(table)
    assert output.getvalue().count(HINT) == 5
    assert "hint [bold]" in output.getvalue()


def test_missing_client_is_told_with_its_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setattr(sys, "argv", ["paraserve", "cluster", "status"])
    with pytest.raises(SystemExit):
        main()
    assert HINT in capsys.readouterr().err


def help_texts(command: Any, path: str = "paraserve") -> Iterator[tuple[str, str]]:
    """Yields every help text of a command and its subcommands."""
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    if hasattr(command, "list_commands"):
        context = command.context_class(command)
        for name in command.list_commands(context):
            _, found, _ = command.resolve_command(context, [name])
            yield from help_texts(found, f"{path} {name}")


def test_help_shows_brackets_too() -> None:
    """Help texts are markup, so `[@REVISION]` must be written with a backslash."""
    texts = list(help_texts(get_command(app)))
    assert len(texts) > 100
    for path, text in texts:
        assert Text.from_markup(text).plain == text.replace("\\[", "["), path
