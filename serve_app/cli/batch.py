"""`paraserve batch`: transcribes many recordings as a job on a Ray cluster."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from serve_app.cli.console import console_for
from serve_app.cli.options import (
    JsonOption,
    OptionalSpeakersCommand,
    ProfileOption,
    SetOption,
    read_secret,
    with_options,
)
from serve_app.core.errors import ClusterError
from serve_app.settings import DEFAULT_PROFILE, load_settings, profile_names, read_profile

if TYPE_CHECKING:
    from serve_app.batch.client import BatchJobs
    from serve_app.batch.job_status import JobInfo

batch_app = typer.Typer(
    no_args_is_help=True,
    help="Transcribe many recordings as a job on a Ray cluster. Exit codes: 0 all recordings "
    "done, 3 some recordings failed, 1 the job failed, 2 usage error, 4 the job is not finished.",
)

JobArgument = Annotated[str, typer.Argument(help="Id of the job, as printed by submit.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", "-w", help="Show progress and exit with the job's result.")
]


@dataclass(frozen=True, slots=True)
class JobCluster:
    """The cluster that runs the jobs, and their settings.

    Attributes:
        profile: of the settings.
        assignments: to settings, `NAME=VALUE` each.
        address: of Ray's dashboard, None for that of the settings.
        token_file: of Ray's token, None for that of the settings.
    """

    profile: str
    assignments: tuple[str, ...]
    address: str | None
    token_file: Path | None

    def jobs(self) -> BatchJobs:
        """Connects to the cluster, once the settings have been checked."""
        from serve_app.batch.client import connect

        batch = load_settings(self.profile, self.assignments).batch
        file = self.token_file or batch.jobs_token_file
        token = None if file is None else read_secret(file)
        return connect(self.address or batch.jobs_address, token)


def cluster_options(
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Address of Ray's dashboard; `batch.jobs_address` by default."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="File with Ray's token; `batch.jobs_token_file` by default."
        ),
    ] = None,
) -> JobCluster:
    """Returns the cluster that the options select."""
    return JobCluster(profile, tuple(set_ or ()), address, token_file)


@batch_app.command("submit", cls=OptionalSpeakersCommand)
@with_options(cluster_options)
def submit_command(
    cluster: JobCluster,
    source: Annotated[
        str, typer.Argument(help="Manifest, directory, glob or prefix, readable by the cluster.")
    ],
    output: Annotated[str, typer.Argument(help="Directory or prefix for the results.")],
    formats: Annotated[
        str | None,
        typer.Option(
            help="Formats beside JSON, such as srt,vtt,txt; those of the settings by default."
        ),
    ] = None,
    stages: Annotated[
        str | None, typer.Option(help="Stages to run, such as vad,asr,punctuation; all by default.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="Folders of a new output: mirror for those of the source, hashed for millions "
            "of recordings; as in the settings by default."
        ),
    ] = None,
    itn: Annotated[
        bool | None, typer.Option(help="Write numbers in digits; as in the settings by default.")
    ] = None,
    speakers: Annotated[
        str | None,
        typer.Option(
            "--speakers",
            metavar="[N]",
            help="Label who speaks. N is the number of speakers of each recording, or a range "
            "such as 2-4, if it is known.",
        ),
    ] = None,
    speaker: Annotated[list[str] | None, typer.Option("--speaker", hidden=True)] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help="Recordings with several channels: mix, or separate to recognize each channel "
            "for itself; as in the settings by default."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry recordings whose failure was permanent.")
    ] = False,
    accept_failures: Annotated[
        bool | None,
        typer.Option(
            help="Exit with 0 instead of 3 if a retry cannot help any of the failed recordings; "
            "as in the settings by default."
        ),
    ] = None,
    wait: WaitOption = False,
) -> None:
    """Start a job. The same command again resumes it."""
    from serve_app.batch.client import JobRequest
    from serve_app.batch.records import NO_KNOWN_SPEAKERS

    if speaker:
        raise typer.BadParameter(NO_KNOWN_SPEAKERS, param_hint="--speaker")
    for uri in (source, output):
        _check_uri(uri)
    # Invalid settings are reported here rather than on the cluster.
    jobs = cluster.jobs()
    options = ["--profile", _portable(cluster.profile)]
    for assignment in cluster.assignments:
        options += ["--set", assignment]
    named = {
        "--formats": formats,
        "--layout": layout,
        "--stages": stages,
        "--channels": channels,
    }
    for name, value in named.items():
        if value:
            options += [name, value]
    if itn is not None:
        options.append("--itn" if itn else "--no-itn")
    if speakers is not None:
        options.append(f"--speakers={speakers}")
    if retry_failed:
        options.append("--retry-failed")
    if accept_failures is not None:
        options.append("--accept-failures" if accept_failures else "--no-accept-failures")
    job_id = jobs.submit(JobRequest(source, output, tuple(options)))
    _report_start(jobs, job_id, wait)


@batch_app.command("resume")
@with_options(cluster_options)
def resume_command(
    cluster: JobCluster,
    job_id: JobArgument,
    wait: WaitOption = False,
) -> None:
    """Run a job's command again, without its finished recordings."""
    jobs = cluster.jobs()
    _report_start(jobs, jobs.resume(job_id), wait)


@batch_app.command("status")
@with_options(cluster_options)
def status_command(
    cluster: JobCluster,
    job_id: Annotated[
        str | None, typer.Argument(help="Id of the job; all jobs by default.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show the progress of one job until it ends.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List jobs, or show one with its progress; the exit code is its state."""
    from serve_app.batch.job_status import EXIT_CODES

    jobs = cluster.jobs()
    if job_id is None:
        _show_all(jobs.jobs(), as_json)
        return
    job = jobs.wait(job_id, _print_progress) if watch else jobs.view(job_id)
    if as_json:
        typer.echo(json.dumps(asdict(job), ensure_ascii=False))
    elif not watch:
        _print_progress(job)
    raise typer.Exit(EXIT_CODES[job.phase])


@batch_app.command("logs")
@with_options(cluster_options)
def logs_command(
    cluster: JobCluster,
    job_id: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the job ends.")
    ] = False,
) -> None:
    """Print the log of a job."""
    jobs = cluster.jobs()
    if not follow:
        typer.echo(jobs.logs(job_id), nl=False)
        return

    async def print_all() -> None:
        async for lines in jobs.follow(job_id):
            typer.echo(lines, nl=False)

    asyncio.run(print_all())


@batch_app.command("cancel")
@with_options(cluster_options)
def cancel_command(
    cluster: JobCluster,
    job_id: JobArgument,
) -> None:
    """Cancel a job. Finished recordings are kept; `resume` continues."""
    if cluster.jobs().cancel(job_id):
        typer.echo(f"{job_id} is being canceled")
    else:
        typer.echo(f"{job_id} had already finished")


@batch_app.command("report")
@with_options(cluster_options)
def report_command(
    cluster: JobCluster,
    job: Annotated[str, typer.Argument(help="Id of a job, or its output directory or prefix.")],
    as_json: JsonOption = False,
) -> None:
    """Print the report of a job. Its output must be readable from here."""
    from serve_app.batch.report import describe_report, read_report

    output = job
    # An id can be any word: clients of Ray may choose it.
    if "/" not in job and not Path(job).exists():
        jobs = cluster.jobs()
        try:
            output = jobs.view(job).output
        except ClusterError as error:
            raise ClusterError(f"there is no directory {job} here, and {error}") from None
    report = read_report(output)
    typer.echo(json.dumps(report, ensure_ascii=False) if as_json else describe_report(report))


def _check_uri(uri: str) -> None:
    """Checks a location before the cluster would.

    Raises:
        BadParameter: jobs cannot read or write it.
    """
    from serve_app.batch.uris import UnusableUri, parse_uri

    try:
        parse_uri(uri)
    except UnusableUri as error:
        raise typer.BadParameter(str(error)) from None


def _portable(profile: str) -> str:
    """Returns a profile for the cluster, which cannot read files of this machine."""
    if profile in profile_names():
        return profile
    return json.dumps(read_profile(profile), ensure_ascii=False, default=str)


def _report_start(jobs: BatchJobs, job_id: str, wait: bool) -> None:
    from serve_app.batch.job_status import EXIT_CODES

    typer.echo(job_id)
    if wait:
        raise typer.Exit(EXIT_CODES[jobs.wait(job_id, _print_progress).phase])


def _print_progress(job: JobInfo) -> None:
    from serve_app.batch.progress_display import progress_figures

    figures = ", ".join(progress_figures(job.progress))
    console = console_for(sys.stderr)
    console.print(f"{job.job_id}: {job.phase}{': ' if figures else ''}{figures}", markup=False)
    if job.ended and job.phase == "failed" and job.message:
        console.print(job.message.strip(), markup=False)


def _show_all(jobs: list[JobInfo], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in jobs], ensure_ascii=False))
        return
    # Ids are pasted into commands: they are never cut.
    table = Table(Column("job", no_wrap=True, overflow="ignore"), "state", "source", "output")
    for job in jobs:
        table.add_row(job.job_id, job.phase, job.source, job.output)
    console_for().print(table)
