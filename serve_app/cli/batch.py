"""`paraserve batch`: transcribes many recordings as a job on a Ray cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from serve_app.cli.console import console_for
from serve_app.cli.options import ProfileOption, SetOption, read_secret
from serve_app.core.errors import ClusterError
from serve_app.settings import DEFAULT_PROFILE, Settings, load_settings, profile_names, read_profile

if TYPE_CHECKING:
    from serve_app.batch.client import BatchJobs
    from serve_app.batch.job_status import JobInfo

batch_app = typer.Typer(
    no_args_is_help=True,
    help="Transcribe many recordings as a job on a Ray cluster. Exit codes: 0 all done, "
    "3 done but some recordings failed, 1 the job failed, 2 wrong usage, 4 not over yet.",
)

AddressOption = Annotated[
    str | None,
    typer.Option(help="Of Ray's dashboard; else `batch.jobs_address` of the settings."),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="Holds Ray's token; else `batch.jobs_token_file`."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobArgument = Annotated[str, typer.Argument(help="Id that submit printed.")]


@batch_app.command("submit")
def submit_command(
    source: Annotated[
        str, typer.Argument(help="Manifest, directory, glob or prefix, as the cluster sees it.")
    ],
    output: Annotated[str, typer.Argument(help="Directory or prefix of the results.")],
    formats: Annotated[
        str | None, typer.Option(help="Beside JSON, as srt,vtt,txt; else as the settings say.")
    ] = None,
    stages: Annotated[
        str | None, typer.Option(help="As vad,asr,punctuation; all by default.")
    ] = None,
    itn: Annotated[
        bool | None, typer.Option(help="Numbers in digits, or not; else as the settings say.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try recordings again that were no good.")
    ] = False,
    accept_failures: Annotated[
        bool | None,
        typer.Option(
            help="Exit code 0, not 3, where the only failures are those that trying again does "
            "not help; else as the settings say."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Show progress and end as the job ends.")
    ] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """Begin a job; the same command again goes on where it was."""
    from serve_app.batch.client import JobRequest

    for place in (source, output):
        _check_place(place)
    # What is wrong with the settings shows here and not on the cluster.
    settings = load_settings(profile, set_)
    options = ["--profile", _shipped(profile)]
    for assignment in set_ or ():
        options += ["--set", assignment]
    for name, value in (("--formats", formats), ("--stages", stages)):
        if value:
            options += [name, value]
    if itn is not None:
        options.append("--itn" if itn else "--no-itn")
    if retry_failed:
        options.append("--retry-failed")
    if accept_failures is not None:
        options.append("--accept-failures" if accept_failures else "--no-accept-failures")
    jobs = _jobs(settings, address, token_file)
    job_id = jobs.submit(JobRequest(source, output, tuple(options)))
    _begun(jobs, job_id, wait)


@batch_app.command("resume")
def resume_command(
    job_id: JobArgument,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Show progress and end as the job ends.")
    ] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """Begin a job's command anew; what is finished is not done again."""
    jobs = _jobs(load_settings(profile, set_), address, token_file)
    _begun(jobs, jobs.resume(job_id), wait)


@batch_app.command("status")
def status_command(
    job_id: Annotated[
        str | None, typer.Argument(help="Id that submit printed; all jobs without it.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Until it ends; for one job.")
    ] = False,
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """Show jobs, or one with its progress; the exit code says how it stands."""
    from serve_app.batch.job_status import EXIT_CODES

    jobs = _jobs(load_settings(profile, set_), address, token_file)
    if job_id is None:
        _show_all(jobs.jobs(), as_json)
        return
    job = jobs.wait(job_id, _tell) if watch else jobs.view(job_id)
    if as_json:
        typer.echo(json.dumps(asdict(job), ensure_ascii=False))
    elif not watch:
        _tell(job)
    raise typer.Exit(EXIT_CODES[job.phase])


@batch_app.command("logs")
def logs_command(
    job_id: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """Print what a job has logged."""
    jobs = _jobs(load_settings(profile, set_), address, token_file)
    if not follow:
        typer.echo(jobs.logs(job_id), nl=False)
        return

    async def print_all() -> None:
        async for lines in jobs.follow(job_id):
            typer.echo(lines, nl=False)

    asyncio.run(print_all())


@batch_app.command("cancel")
def cancel_command(
    job_id: JobArgument,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """End a job; what it finished stays, and `resume` goes on from there."""
    if _jobs(load_settings(profile, set_), address, token_file).cancel(job_id):
        typer.echo(f"{job_id} is being canceled")
    else:
        typer.echo(f"{job_id} was over already")


@batch_app.command("report")
def report_command(
    job: Annotated[str, typer.Argument(help="Id of a job, or its output directory or prefix.")],
    as_json: JsonOption = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: AddressOption = None,
    token_file: TokenOption = None,
) -> None:
    """Print the report of a job; its output must be within reach from here."""
    from serve_app.batch.report import describe_report, read_report

    output = job
    # Ids can be any word: whoever submits a job may choose it.
    if "/" not in job and not Path(job).exists():
        settings = load_settings(profile, set_)
        try:
            output = _jobs(settings, address, token_file).view(job).output
        except ClusterError as error:
            raise ClusterError(f"there is no directory {job} here, and {error}") from None
    report = read_report(output)
    typer.echo(json.dumps(report, ensure_ascii=False) if as_json else describe_report(report))


def _jobs(settings: Settings, address: str | None, token_file: Path | None) -> BatchJobs:
    from serve_app.batch.client import connect

    file = token_file or settings.batch.jobs_token_file
    token = None if file is None else read_secret(file)
    return connect(address or settings.batch.jobs_address, token)


def _check_place(uri: str) -> None:
    """Finds out here what the cluster would find out later.

    Raises:
        BadParameter: no job reads or writes there.
    """
    from serve_app.batch.uris import UnusableUri, parse_uri

    try:
        parse_uri(uri)
    except UnusableUri as error:
        raise typer.BadParameter(str(error)) from None


def _shipped(profile: str) -> str:
    """Returns a profile as the cluster can read it, which does not see the files of this place."""
    if profile in profile_names():
        return profile
    return json.dumps(read_profile(profile), ensure_ascii=False, default=str)


def _begun(jobs: BatchJobs, job_id: str, wait: bool) -> None:
    from serve_app.batch.job_status import EXIT_CODES

    typer.echo(job_id)
    if wait:
        raise typer.Exit(EXIT_CODES[jobs.wait(job_id, _tell).phase])


def _tell(job: JobInfo) -> None:
    figures = ", ".join(_figures(job.progress))
    console = console_for(sys.stderr)
    console.print(f"{job.job_id}: {job.phase}{': ' if figures else ''}{figures}", markup=False)
    if job.ended and job.phase == "failed" and job.message:
        console.print(job.message.strip(), markup=False)


def _figures(progress: Any) -> list[str]:
    """Returns what there is of the figures, in words."""
    shown = []
    if "done" in progress:
        shown.append(f"{progress['done']} of {progress.get('total', '?')} done")
    if progress.get("failed"):
        shown.append(f"{progress['failed']} failed")
    for name, unit in (("audio_h", "h of audio"), ("rtfx", "x real time"), ("eta_s", "s left")):
        if progress.get(name) is not None:
            shown.append(f"{progress[name]:,.1f} {unit}")
    return shown


def _show_all(jobs: list[JobInfo], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in jobs], ensure_ascii=False))
        return
    table = Table("job", "state", "source", "output")
    for job in jobs:
        table.add_row(*map(escape, (job.job_id, job.phase, job.source, job.output)))
    console_for().print(table)
