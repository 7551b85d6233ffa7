"""`paraserve usage`: the audio that API keys use in a calendar month."""

from __future__ import annotations

import asyncio
import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from serve_app.cli.console import console_for, note
from serve_app.cli.options import ProfileOption, SetOption, with_options
from serve_app.cli.service_options import (
    ServiceOptions,
    connected,
    service_options,
    store_imports,
)
from serve_app.client import MonthUsage, UsageOfKind
from serve_app.core.errors import ConfigurationError
from serve_app.profiles import DEFAULT_PROFILE

_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)
_COLUMNS = ("key", "month", "kind", "audio_s", "requests")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What a key has used in a month in one way."""

    key: str
    month: str
    kind: str
    audio_s: float
    num_requests: int


@with_options(service_options)
def usage_command(
    service: ServiceOptions,
    month: Annotated[
        str | None,
        typer.Option(help="Calendar month in UTC, such as 2026-11; the present one by default."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    all_: Annotated[
        bool,
        typer.Option(
            "--all",
            help="All keys, read from `jobs.database_url` of the settings; for operators.",
        ),
    ] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
) -> None:
    """Print the audio that the API key has used in a month."""
    if month is not None and not _MONTH.fullmatch(month):
        raise typer.BadParameter(f"--month {month!r} is not a month such as 2026-11")
    if not all_ and (set_ or profile != DEFAULT_PROFILE):
        raise typer.BadParameter("--profile and --set require --all")
    if all_:
        month = month or datetime.now(UTC).strftime("%Y-%m")
        _print(_stored(month, profile, set_), as_csv)
        return
    with connected(service) as client:
        used = client.usage(month or "")
    _print([UsageRow(used.key, used.month, *_of(kind)) for kind in used.kinds], as_csv)
    if not as_csv:
        note(_quota_text(used), console_for(sys.stderr))


def _of(kind: UsageOfKind) -> tuple[str, float, int]:
    return kind.kind, kind.audio_s, kind.num_requests


def _stored(month: str, profile: str, assignments: list[str] | None) -> Sequence[UsageRow]:
    """Reads the usage of all keys.

    Raises:
        ConfigurationError: jobs are not enabled, or the database is not the right one.
        StoreUnavailable: the database does not answer.
    """
    from serve_app.settings import load_settings

    settings = load_settings(profile, assignments).jobs
    if not settings.enabled:
        raise ConfigurationError("jobs.enabled is false, so nothing counts what keys use")
    with store_imports():
        from serve_app.jobs.opening import open_store

    async def read() -> list[UsageRow]:
        store = open_store(settings)
        try:
            return [
                UsageRow(one.key, one.month, one.kind, one.audio_s, one.num_requests)
                for one in await store.usage(month)
            ]
        finally:
            await store.close()

    return asyncio.run(read())


def _quota_text(used: MonthUsage) -> str:
    hours = used.audio_s / 3600
    if used.max_audio_s is None:
        return f"{hours:.2f} hours of audio, without a quota"
    return f"{hours:.2f} of {used.max_audio_s / 3600:g} hours of audio until {used.until}"


def _print(rows: Sequence[UsageRow], as_csv: bool) -> None:
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            writer.writerow((row.key, row.month, row.kind, f"{row.audio_s:.3f}", row.num_requests))
        return
    table = Table("key", "month", "kind", "hours of audio", "requests")
    for row in rows:
        hours = f"{row.audio_s / 3600:.2f}"
        table.add_row(row.key, row.month, row.kind, hours, str(row.num_requests))
    console_for().print(table)
