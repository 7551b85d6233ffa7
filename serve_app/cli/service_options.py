"""What the commands that call a running service share: its address, the key, its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from serve_app.cli.console import FAILED, tell
from serve_app.cli.options import KEY_VARIABLES, api_key_of
from serve_app.client import ClientError, Paraserve
from serve_app.core.errors import ConfigurationError

_KNOWN_404 = frozenset({"job_not_found", "upload_not_found"})
_MAX_RETRIES = 2
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """Where the service is, and who calls.

    Attributes:
        url: as it was given; None for $PARASERVE_URL, else this machine.
        api_key: None without one.
    """

    url: str | None
    api_key: str | None = field(default=None, repr=False)

    @property
    def as_arguments(self) -> str:
        """The options as they are typed, for messages; without the key."""
        return f" --url {self.url}" if self.url else ""


def service_options(
    url: Annotated[
        str | None,
        typer.Option(
            help="URL of the service; $PARASERVE_URL or http://localhost:8000 by default."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the API key; $PARASERVE_API_KEY or $OPENAI_API_KEY by default."
        ),
    ] = None,
) -> ServiceOptions:
    """Takes the options of a command that calls the service."""
    return ServiceOptions(url, api_key_of(api_key_file))


def connect(
    options: ServiceOptions, *, timeout_s: float = _TIMEOUT_S, max_retries: int = _MAX_RETRIES
) -> Paraserve:
    """Returns a client of the service.

    Raises:
        ConfigurationError: the URL is invalid.
    """
    try:
        return Paraserve(
            options.url, options.api_key or "", timeout_s=timeout_s, max_retries=max_retries
        )
    except ValueError as error:
        raise ConfigurationError(f"--url {error}") from None


def problem_of(error: ClientError, url: str) -> str:
    """Returns what to tell of an error of a call about jobs."""
    if error.status == 404 and error.code not in _KNOWN_404:
        return f"the service at {url} has no jobs; its setting jobs.enabled turns them on"
    if error.status == 401:
        return f"{error.message}; give --api-key-file or {KEY_VARIABLES}"
    return error.message


@contextmanager
def connected(options: ServiceOptions) -> Iterator[Paraserve]:
    """Yields a client; an error of a call is printed and ends the command.

    Raises:
        typer.Exit: with code 1, after an error.
        ConfigurationError: the URL is invalid.
    """
    with connect(options) as service:
        try:
            yield service
        except ClientError as error:
            tell("error", problem_of(error, service.url))
            raise typer.Exit(FAILED) from None
        except (TimeoutError, ValueError) as error:
            tell("error", str(error))
            raise typer.Exit(FAILED) from None


def fail(message: str) -> typer.Exit:
    """Prints an error; returns what to raise."""
    tell("error", message)
    return typer.Exit(FAILED)


@contextmanager
def store_imports() -> Iterator[None]:
    """Says what to install if a package of the jobs' store is missing.

    Raises:
        ConfigurationError: one is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("serve_app"):
            raise
        raise ConfigurationError(
            f"{error.name} is not installed: pip install 'paraserve[jobs]'"
        ) from None
