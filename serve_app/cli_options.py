"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

ProfileOption: TypeAlias = Annotated[
    str, typer.Option("--profile", "-p", help="Built-in profile, or a YAML file.")
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as recognizer.device=cpu; may be repeated."),
]
