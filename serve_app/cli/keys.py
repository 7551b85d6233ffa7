"""`paraserve keys`: creates, lists and checks API keys, and the secrets of their webhooks."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.table import Table

from serve_app.cli.console import console_for
from serve_app.settings.keys import (
    KeyEntry,
    KeyLimits,
    add_key,
    as_yaml,
    hash_of,
    new_key,
    read_keys,
)
from serve_app.settings.webhook_secrets import (
    add_webhook_secret,
    drop_old_webhook_secret,
    new_webhook_secret,
    rotate_webhook_secret,
)
from serve_app.settings.webhook_secrets import (
    as_yaml as secret_as_yaml,
)

keys_app = typer.Typer(
    no_args_is_help=True, help="Create, list and check API keys and webhook secrets."
)

FileArgument = Annotated[Path, typer.Argument(help="The keys file.")]


@keys_app.command("new")
def new_command(
    name: Annotated[str, typer.Option("--name", help="Name of the owner; it appears in logs.")],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", help="Keys file to add the key to; by default the entry is printed."
        ),
    ] = None,
    weight: Annotated[
        float, typer.Option("--weight", help="Share of a busy service relative to other keys.")
    ] = 1.0,
    expires: Annotated[
        datetime | None, typer.Option("--expires", help="Time in UTC at which the key expires.")
    ] = None,
    max_running: Annotated[
        int | None,
        typer.Option(
            "--max-running", help="Maximum number of requests at once per ingress replica."
        ),
    ] = None,
    max_audio_hours: Annotated[
        float | None,
        typer.Option(
            "--max-audio-hours", help="Quota of audio in hours per calendar month; needs jobs."
        ),
    ] = None,
) -> None:
    """Create a key. It is printed once; only its hash is stored."""
    key = new_key()
    try:
        entry = KeyEntry(
            name=name,
            sha256=hash_of(key),
            weight=weight,
            expires=expires,
            limits=KeyLimits(
                max_running=max_running,
                max_audio_s_per_month=None if max_audio_hours is None else max_audio_hours * 3600,
            ),
        )
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise typer.BadParameter(f"{first['loc'][0]}: {first['msg']}") from None
    if file is None:
        typer.echo("Add this to the keys file:", err=True)
        typer.echo(yaml.safe_dump({"keys": [as_yaml(entry)]}, sort_keys=False).rstrip(), err=True)
    else:
        add_key(file, entry)
        typer.echo(
            f"Added to {file}. A running service that uses the file accepts the key now.", err=True
        )
    typer.echo("The key, which is not shown again:", err=True)
    typer.echo(key)


@keys_app.command("list")
def list_command(file: FileArgument) -> None:
    """List the keys of a file, without their hashes."""
    table = Table("name", "state", "weight", "expires", "limits")
    for entry in read_keys(file):
        limits = ", ".join(
            f"{k}={v}" for k, v in entry.limits.model_dump(exclude_none=True).items()
        )
        expires = entry.expires.isoformat() if entry.expires else "never"
        table.add_row(entry.name, _state(entry), f"{entry.weight:g}", expires, limits)
    console_for().print(table)


@keys_app.command("check")
def check_command(
    file: FileArgument,
    key: Annotated[
        bool,
        typer.Option("--key", help="Read a key from standard input and print its name and state."),
    ] = False,
) -> None:
    """Check a keys file, or a key. Exit code 1: the key is not in the file or not active."""
    entries = read_keys(file)
    if not key:
        num_active = sum(_state(entry) == "active" for entry in entries)
        typer.echo(f"{file}: {len(entries)} keys, {num_active} active")
        return
    presented = hash_of(sys.stdin.readline().strip())
    for entry in entries:
        if entry.sha256 == presented:
            typer.echo(f"{entry.name}: {_state(entry)}")
            raise typer.Exit(0 if _state(entry) == "active" else 1)
    typer.echo("the key is not in the file")
    raise typer.Exit(1)


@keys_app.command("webhook-secret")
def webhook_secret_command(
    name: Annotated[
        str,
        typer.Argument(help="Name of the API key whose jobs the webhooks tell of."),
    ],
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            help="File of `jobs.webhook_secrets_file` to change; by default the entry is printed.",
        ),
    ] = None,
    rotate: Annotated[
        bool,
        typer.Option(
            "--rotate", help="Make a new secret; webhooks are signed with the old one as well."
        ),
    ] = False,
    drop_old: Annotated[
        bool,
        typer.Option(
            "--drop-old", help="Drop the old secret, once all receivers know the new one."
        ),
    ] = False,
) -> None:
    """Create, rotate or drop the secret that signs a key's webhooks.

    A new secret is printed once. Its form is that of Standard Webhooks.
    """
    if file is None:
        if rotate or drop_old:
            raise typer.BadParameter("--rotate and --drop-old require --file")
        secret = new_webhook_secret()
        entry = yaml.safe_dump({"secrets": [secret_as_yaml(name, [secret])]}, sort_keys=False)
        typer.echo("Add this to the webhook secrets file:", err=True)
        typer.echo(entry.rstrip(), err=True)
    elif drop_old and not rotate:
        dropped = drop_old_webhook_secret(file, name)
        typer.echo("Dropped the old secret." if dropped else "There is no old secret.", err=True)
        return
    else:
        secret = _changed_secret(file, name, rotate, drop_old)
    typer.echo("The secret, for the receivers of the webhooks:", err=True)
    typer.echo(secret)


def _changed_secret(file: Path, name: str, rotate: bool, drop_old: bool) -> str:
    if not rotate:
        secret = add_webhook_secret(file, name)
        typer.echo(f"Added to {file}.", err=True)
        return secret
    secret = rotate_webhook_secret(file, name, drop_old=drop_old)
    typer.echo(f"Added to {file}; the old secret signs as well until --drop-old.", err=True)
    return secret


def _state(entry: KeyEntry) -> str:
    if entry.disabled:
        return "disabled"
    return "expired" if entry.expired(datetime.now(UTC)) else "active"
