"""Writes docs/cli.md from the commands' own help: `python docs/generate_cli.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from serve_app.cli.main import app

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Command line

Written by `python docs/generate_cli.py`. Shell completion: `paraserve --install-completion`.
Settings of `--set` and the files of `--profile` are in [settings.md](settings.md).

| exit code | |
|---|---|
| 0 | success |
| 1 | failure: of a file, a model, the machine or the service |
| 2 | wrong usage or settings |
| 3 | partial: some recordings, or parts of one, have no text; `serve`: requests were cut off |
| 4 | `serve`: the Ray node died; `batch status`: the job is not finished |
| 130, 143 | interrupted by Ctrl-C, ended by SIGTERM before the service was up |

Errors are one line on standard error, without a traceback.
"""


def cli_page() -> str:
    return HEAD + "".join(_sections(get_command(app), "paraserve"))


def _sections(command: Any, path: str) -> Iterator[str]:
    """Yields a section per command that does something, depth first."""
    if not hasattr(command, "list_commands"):
        yield _section(command, path)
        return
    with command.make_context(path, [], resilient_parsing=True) as context:
        for name in sorted(command.list_commands(context)):
            # Groups are imported when they are resolved.
            _, found, _ = command.resolve_command(context, [name])
            yield from _sections(found, f"{path} {name}")


def _section(command: Any, path: str) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each
        for each in command.params
        if each.param_type_name == "option" and not each.hidden and each.name != "help"
    ]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    rows = [(f"`{_argument(each)}`", each.help or "", "") for each in arguments]
    rows += [(_names(each), each.help or "", _default(each)) for each in options]
    table = "".join(
        f"| {name} | {_cell(text)} | {_cell(default)} |\n" for name, text, default in rows
    )
    lines = [f"\n## {path}\n", f"```\n{usage}\n```\n", f"{_description(command.help)}\n"]
    if table:
        lines.append(f"| | | default |\n|---|---|---|\n{table}")
    return "\n".join(lines)


def _description(text: str | None) -> str:
    paragraphs = re.split(r"\n\s*\n", (text or "").strip())
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[]").upper()
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))


def _default(option: Any) -> str:
    default = option.default
    return "" if default in (None, False, (), []) or callable(default) else f"`{default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    TARGET.write_text(cli_page(), encoding="utf-8")
