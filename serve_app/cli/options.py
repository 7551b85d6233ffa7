"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

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
