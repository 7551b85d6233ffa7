"""What several commands share: options, secrets, and groups that are imported when they run."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Concatenate, ParamSpec, TypeAlias, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from serve_app.core.errors import ConfigurationError

ProfileOption: TypeAlias = Annotated[
    str, typer.Option("--profile", "-p", help="Built-in profile, or path of a YAML file.")
]
SetOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a setting, such as recognizer.device=cpu; repeatable. docs/settings.md lists "
        "them: first those for operators, then the advanced ones.",
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StoreOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--store", help="Directory of downloaded packs; the user's cache by default."),
]

# The second is the one that OpenAI's clients read.
_KEY_VARIABLES = ("PARASERVE_API_KEY", "OPENAI_API_KEY")
KEY_VARIABLES = " or ".join(f"${variable}" for variable in _KEY_VARIABLES)
"""The environment variables that may hold the API key, as help texts name them."""

_SPEAKERS = re.compile(r"\d+(-\d+)?")

SharedT = TypeVar("SharedT")
ResultT = TypeVar("ResultT")
CommandP = ParamSpec("CommandP")


def with_options(
    shared: Callable[..., SharedT],
) -> Callable[[Callable[Concatenate[SharedT, CommandP], ResultT]], Callable[CommandP, ResultT]]:
    """Gives commands the options of a function, and its result as their first argument.

    Options of a Typer callback would have to stand before the subcommand's name; these may
    follow it.

    Args:
        shared: function of options only; they are listed after the command's own.
    """
    shared_parameters = inspect.signature(shared, eval_str=True).parameters

    def decorate(
        command: Callable[Concatenate[SharedT, CommandP], ResultT],
    ) -> Callable[CommandP, ResultT]:
        @wraps(command)
        def run(*args: CommandP.args, **kwargs: CommandP.kwargs) -> ResultT:
            chosen = {name: kwargs.pop(name) for name in shared_parameters}
            return command(shared(**chosen), *args, **kwargs)

        signature = inspect.signature(command, eval_str=True)
        _, *own = signature.parameters.values()
        parameters = [*own, *shared_parameters.values()]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def read_secret(file: Path) -> str:
    """Returns the key or token in a file. Command lines hold no secrets: other users can see them.

    Raises:
        ConfigurationError: the file cannot be read, or holds no key.
    """
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not a UTF-8 text file") from None
    return checked_secret(secret, str(file))


def api_key_of(file: Path | None) -> str | None:
    """Returns the API key. Command lines hold no secrets: other users can see them.

    Raises:
        ConfigurationError: the file or the variable holds no key.
    """
    if file is not None:
        return read_secret(file)
    for variable in _KEY_VARIABLES:
        if key := os.environ.get(variable, "").strip():
            return checked_secret(key, variable)
    return None


def checked_secret(secret: str, origin: str) -> str:
    """Returns a key or token after checking that a header can carry it.

    Raises:
        ConfigurationError: it cannot; the message names its origin, not its content.
    """
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigurationError(
            f"{origin} holds no key: a key is one line of ASCII without spaces"
        )
    return secret


# Typer bundles Click from 0.20 on and imports it before, so Click's types have no stable name.


class LazyGroup(TyperGroup):
    """Lists its groups without importing them.

    Attributes:
        lazy: by name of a group, its location (`module:attribute`) and help.
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


class OptionalSpeakersCommand(TyperCommand):
    """Accepts `--speakers` without a number; Typer has no options with an optional value."""

    def make_parser(self, ctx: Any) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args
        parser.parse_args = lambda args: parse(_with_speakers_value(args))
        return parser


def _with_speakers_value(args: Sequence[str]) -> list[str]:
    completed: list[str] = []
    for number, argument in enumerate(args):
        following = args[number + 1] if number + 1 < len(args) else ""
        if argument == "--speakers" and not _SPEAKERS.fullmatch(following):
            # It imports NumPy, which the help of the command does not need.
            from serve_app.core.speakers import ANY_NUMBER

            argument = f"{argument}={ANY_NUMBER}"
        completed.append(argument)
    return completed


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
