"""Text is printed as it is."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from serve_app.cli.console import console_for, note, tell

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
    import sys

    from serve_app.cli.main import main

    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setattr(sys, "argv", ["paraserve", "cluster", "status"])
    with pytest.raises(SystemExit):
        main()
    assert HINT in capsys.readouterr().err
