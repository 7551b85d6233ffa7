"""`paraserve jobs`: the jobs of a running service, and the tables of its database."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from serve_app.cli.console import FAILED, PARTIAL, console_for, tell
from serve_app.cli.job_progress import (
    clock_text,
    end_text,
    position_text,
    progress_bar,
    show_job,
    time_text,
)
from serve_app.cli.options import JsonOption, ProfileOption, SetOption, with_options
from serve_app.cli.output_files import write_whole
from serve_app.cli.service_options import (
    ServiceOptions,
    connected,
    fail,
    problem_of,
    service_options,
    store_imports,
)
from serve_app.client import ClientError, Job
from serve_app.client.requests import FieldValue
from serve_app.profiles import DEFAULT_PROFILE

jobs_app = typer.Typer(
    no_args_is_help=True,
    help="List, watch and end the jobs of a service, and fetch their transcripts.",
)

JobArgument = Annotated[str, typer.Argument(metavar="JOB_ID", help="Id of the job.")]
JobsArgument = Annotated[list[str], typer.Argument(metavar="JOB_ID", help="Ids of jobs.")]

_STATUSES = ("queued", "running", "completed", "failed", "cancelled", "expired")


@jobs_app.command("list")
@with_options(service_options)
def list_command(
    service: ServiceOptions,
    status: Annotated[
        list[str] | None,
        typer.Option(help=f"Only jobs in this state: {', '.join(_STATUSES)}. Repeatable."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of jobs, the newest first.")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the jobs of the API key, the newest first."""
    wrong = [one for one in status or () if one not in _STATUSES]
    if wrong:
        raise typer.BadParameter(f"--status {wrong[0]!r} is none of {', '.join(_STATUSES)}")
    found: list[Job] = []
    with connected(service) as client:
        for job in client.jobs.list(status or (), page_size=min(limit, 100)):
            found.append(job)
            if len(found) >= limit:
                break
    if as_json:
        _print_json([job.body for job in found])
        return
    table = Table("job", "state", "progress", "audio", "priority", "created", "metadata")
    for job in found:
        table.add_row(*_row(job))
    console_for().print(table)


@jobs_app.command("show")
@with_options(service_options)
def show_command(service: ServiceOptions, job_id: JobArgument, as_json: JsonOption = False) -> None:
    """Print the state of a job."""
    with connected(service) as client:
        job = client.jobs.get(job_id)
    if as_json:
        _print_json(job.body)
        return
    table = Table(show_header=False)
    for name, value in _details(job):
        table.add_row(name, value)
    console_for().print(table)


@jobs_app.command("result")
@with_options(service_options)
def result_command(
    service: ServiceOptions,
    job_id: JobArgument,
    format_: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="Format: text, json, verbose_json, diarized_json, srt or vtt."
        ),
    ] = "text",
    subtitle: Annotated[
        list[str] | None,
        typer.Option(help="Option for srt and vtt, such as max_chars=16. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File; standard output by default.")
    ] = None,
) -> None:
    """Print the transcript of a completed job. Exit code 3: parts of it have no text."""
    fields: dict[str, FieldValue] = {}
    for assignment in subtitle or ():
        name, _, value = assignment.partition("=")
        fields[f"subtitle_{name.strip()}"] = value
    with connected(service) as client:
        answer = client.jobs.result(job_id, format_, **fields)
    for warning in answer.warnings:
        tell("warning", warning)
    if output is not None:
        write_whole(output, answer.text)
    else:
        typer.echo(answer.text.rstrip("\n"))
    if answer.partial:
        tell("partial", "parts have no text because of errors")
        raise typer.Exit(PARTIAL)


@jobs_app.command("watch")
@with_options(service_options)
def watch_command(service: ServiceOptions, job_id: JobArgument) -> None:
    """Show the progress of a job until it ends. Exit code 1: it did not complete.

    Ctrl-C ends the display, not the job.
    """
    with connected(service) as client, progress_bar() as bars:
        task = bars.add_task(job_id, total=None, position="")
        job = client.jobs.wait(job_id, progress=lambda job: show_job(bars, task, job))
    if job.status != "completed":
        raise fail(f"{job.id}: {end_text(job)}")
    typer.echo(f"{job.id}: completed", err=True)


@jobs_app.command("cancel")
@with_options(service_options)
def cancel_command(service: ServiceOptions, job_ids: JobsArgument) -> None:
    """End jobs. Those that have ended stay as they are."""

    def cancel(job_id: str) -> str:
        return client.jobs.cancel(job_id).status

    with connected(service) as client:
        _for_each(job_ids, cancel, client.url)


@jobs_app.command("delete")
@with_options(service_options)
def delete_command(service: ServiceOptions, job_ids: JobsArgument) -> None:
    """Remove jobs with their recordings and transcripts, whatever their state."""

    def delete(job_id: str) -> str:
        client.jobs.delete(job_id)
        return "deleted"

    with connected(service) as client:
        _for_each(job_ids, delete, client.url)


@jobs_app.command("webhook")
@with_options(service_options)
def webhook_command(service: ServiceOptions, job_ids: JobsArgument) -> None:
    """Deliver the webhooks of jobs again that have ended."""

    def deliver(job_id: str) -> str:
        webhook = client.jobs.deliver_webhook_again(job_id).webhook
        return "pending" if webhook is None else f"{webhook.url} {webhook.status or 'pending'}"

    with connected(service) as client:
        _for_each(job_ids, deliver, client.url)


@jobs_app.command("migrate")
def migrate_command(profile: ProfileOption = DEFAULT_PROFILE, set_: SetOption = None) -> None:
    """Create the tables of `jobs.database_url`, or bring them up to date with this release.

    The service does so itself when it starts, unless its database user has no right to.
    """
    from serve_app.settings import load_settings

    settings = load_settings(profile, set_).jobs
    with store_imports():
        from serve_app.jobs.database import migrate
        from serve_app.jobs.opening import database_url
    before, after = migrate(database_url(settings))
    if before == after:
        typer.echo(f"The tables are up to date (revision {after}).")
    else:
        typer.echo(f"The tables are at revision {after}; before: {before or 'none'}.")


def _row(job: Job) -> Sequence[str]:
    metadata = ", ".join(f"{name}={value}" for name, value in job.metadata.items())
    audio = clock_text(job.progress.total_audio_s)
    created = time_text(job.created_at)
    progress = "" if job.is_final else position_text(job)
    return (job.id, job.status, progress, audio, job.priority, created, metadata)


def _details(job: Job) -> list[tuple[str, str]]:
    rows = [
        ("job", job.id),
        ("state", job.status),
        *([] if job.is_final else [("progress", position_text(job))]),
        ("audio", clock_text(job.progress.total_audio_s)),
        ("priority", job.priority),
        ("attempts", str(job.num_attempts)),
        ("created", time_text(job.created_at)),
        ("started", time_text(job.started_at)),
        ("finished", time_text(job.finished_at)),
    ]
    if job.expires_at is not None:
        rows.append(("expires unless started", time_text(job.expires_at)))
    if job.removed_at is not None:
        rows.append(("is removed", time_text(job.removed_at)))
    if job.error is not None:
        rows.append(("error", f"{job.error.code}: {job.error.message}"))
    if job.webhook is not None:
        webhook = job.webhook
        state = webhook.status or "sent when the job ends"
        rows.append(("webhook", f"{webhook.url}: {state} (attempts: {webhook.num_attempts})"))
    rows += [(f"metadata {name}", value) for name, value in job.metadata.items()]
    return rows


def _for_each(job_ids: Sequence[str], act: Callable[[str], str], url: str) -> None:
    """Acts on each job, and prints what came of it.

    Raises:
        typer.Exit: with code 1, if the service refused one.
    """
    num_failed = 0
    for job_id in job_ids:
        try:
            outcome = act(job_id)
        except ClientError as error:
            if error.status == 0:
                raise
            num_failed += 1
            tell("failed", f"{job_id}: {problem_of(error, url)}")
        else:
            typer.echo(f"{job_id}: {outcome}")
    if num_failed:
        raise typer.Exit(FAILED)


def _print_json(content: object) -> None:
    json.dump(content, sys.stdout, ensure_ascii=False, indent=2)
    typer.echo()
