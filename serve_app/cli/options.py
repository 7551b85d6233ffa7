"""Options that several commands share, and a command group that imports subcommands lazily."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from serve_app.core.errors import ConfigurationError

ProfileOption: TypeAlias = Annotated[
    str, typer.Option("--profile", "-p", help="Built-in profile, or a YAML file.")
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, as recognizer.device=cpu; may be repeated."),
]


def read_secret(file: Path) -> str:
    """Returns the key or token in a file; secrets are on no command line, which others see.

    Raises:
        ConfigurationError: it cannot be read, or holds something else; without its content.
    """
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not text") from None
    return checked_secret(secret, str(file))


def checked_secret(secret: str, origin: str) -> str:
    """Returns a key or token that can be sent in a header.

    Raises:
        ConfigurationError: it cannot; the message says where it is from, and not what it is.
    """
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError(f"{origin} holds no key: one line of ASCII without spaces")
    return secret


# Typer carries a copy of Click from 0.20 on and uses Click itself before: no type has one name.


class LazyGroup(TyperGroup):
    """Lists its groups by name and help without importing what they need.

    Attributes:
        lazy: by the name of a group, where it is (`module:attribute`) and its help.
    """

    lazy: ClassVar[dict[str, tuple[str, str]]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *self.lazy]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, help=self.lazy[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.lazy:
            command = _load(name, self.lazy[name][0])
        return name, command, rest


def _load(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    found: object = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        single.command(name)(found)  # type: ignore[type-var]
        found = single
    command = get_command(found)
    command.name = name
    return command
