"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.testing import CliRunner

from serve_app.cli.options import with_options

app = typer.Typer()


def target_options(
    host: Annotated[str, typer.Option(help="Name of the host.")] = "here",
    port: Annotated[int, typer.Option("--port", "-p", help="Number of the port.")] = 80,
) -> tuple[str, int]:
    return host, port


@app.command("copy")
@with_options(target_options)
def copy_command(
    target: tuple[str, int],
    file: Annotated[str, typer.Argument(help="Name of the file.")],
    force: Annotated[bool, typer.Option("--force")] = False,
) -> None:
    """Copy a file."""
    typer.echo(f"{file} {force} {target}")


@app.command("ping")
@with_options(target_options)
def ping_command(target: tuple[str, int]) -> None:
    """Reach a host."""
    typer.echo(f"{target}")


def test_shared_options_reach_each_command_beside_its_own() -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["copy", "a", "-p", "81", "--force", "--host", "there"])
    assert result.stdout == "a True ('there', 81)\n"
    assert runner.invoke(app, ["ping", "--port", "82"]).stdout == "('here', 82)\n"


def test_shared_options_have_their_defaults_and_are_checked() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["copy", "a"]).stdout == "a False ('here', 80)\n"
    assert runner.invoke(app, ["copy", "a", "--port", "x"]).exit_code == 2


def test_help_lists_the_shared_options_and_hides_their_carrier() -> None:
    shown = CliRunner().invoke(app, ["copy", "--help"], terminal_width=120).stdout
    assert "Name of the host." in shown
    assert "Number of the port." in shown
    assert "target" not in shown
