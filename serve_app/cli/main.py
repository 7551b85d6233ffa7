"""The command `paraserve`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from serve_app.cli.console import FAILED, console_for, tell, use_utf8
from serve_app.cli.options import (
    KEY_VARIABLES,
    LazyGroup,
    OptionalSpeakersCommand,
    ProfileOption,
    SetOption,
    api_key_of,
)
from serve_app.core.errors import (
    AudioError,
    ConfigurationError,
    DeviceUnavailable,
    PackCorrupt,
    PackFetchFailed,
    PackIncomplete,
    ParaserveError,
    RequestError,
)
from serve_app.profiles import DEFAULT_PROFILE

if TYPE_CHECKING:
    from serve_app.settings import Settings

WRONG_USAGE, INTERRUPTED = 2, 130


class _Commands(LazyGroup):
    lazy: ClassVar[dict[str, tuple[str, str]]] = {
        "models": (
            "serve_app.cli.models:models_app",
            "List, download, verify and create model packs.",
        ),
        "bench": ("serve_app.cli.bench:bench_app", "Measure on this machine."),
        "keys": (
            "serve_app.cli.keys:keys_app",
            "Create, list and check API keys and webhook secrets.",
        ),
        "cluster": (
            "serve_app.cli.cluster:cluster_app",
            "Inspect and operate a release on Kubernetes.",
        ),
        "batch": ("serve_app.cli.batch:batch_app", "Transcribe many recordings on a Ray cluster."),
        "jobs": (
            "serve_app.cli.jobs:jobs_app",
            "List, watch and end the jobs of a service, and fetch their transcripts.",
        ),
        "usage": (
            "serve_app.cli.usage:usage_command",
            "Print the audio that an API key has used in a month.",
        ),
        "live": (
            "serve_app.cli.live:live_command",
            "Transcribe speech while it is spoken.",
        ),
        "logs": (
            "serve_app.cli.logs:logs_command",
            "Print the logs of the service that runs on this machine.",
        ),
        "plan": (
            "serve_app.cli.plan:plan_command",
            "Estimate how many GPUs a day's traffic needs.",
        ),
    }


app = typer.Typer(
    cls=_Commands,
    help="Transcribe long Mandarin speech to punctuated text with timestamps. Exit codes: "
    "0 success, 1 failure, 2 invalid usage or settings, 3 partial success.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"paraserve {version('paraserve')}")
        raise typer.Exit


@app.callback()
def paraserve(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Takes the options before any subcommand."""


@app.command()
def serve(
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    restart: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of times in a row to start again in this process if the Ray node dies; "
            "requests get a 503 with Retry-After meanwhile.",
        ),
    ] = 0,
) -> None:
    """Run the service on this machine until Ctrl-C.

    Exit codes: 0 all requests finished, 1 the start failed, 2 invalid usage or settings,
    3 requests were cut off, 4 the Ray node died.
    """
    from serve_app.cli.serve import serve_until_interrupted
    from serve_app.hosting.restarts import Restarts

    restarts = Restarts.from_environment(restart)
    settings = _settings(profile, set_)
    raise typer.Exit(serve_until_interrupted(settings, console_for(sys.stderr), restarts))


@app.command()
def demo(
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    exit_: Annotated[
        bool,
        typer.Option("--exit", help="Stop after the transcript. Exit code 0 if it is correct."),
    ] = False,
) -> None:
    """Run the service and transcribe the bundled recording with it."""
    from serve_app.cli.serve import run_demo

    raise typer.Exit(run_demo(_settings(profile, set_), stay_up=not exit_))


@app.command(cls=OptionalSpeakersCommand)
def transcribe(
    files: Annotated[list[str], typer.Argument(help="Files, directories or glob patterns.")],
    url: Annotated[
        str | None,
        typer.Option(help="URL of a running service; by default the models run in this process."),
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="Format: text, json, verbose_json, diarized_json, srt or vtt.",
        ),
    ] = "text",
    speakers: Annotated[
        str | None,
        typer.Option(
            "--speakers",
            metavar="[N]",
            help="Label who speaks, in every format. N is the number of speakers, or a range such "
            "as 2-4, if it is known.",
        ),
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            "--speaker",
            metavar="NAME=FILE",
            help="Name a speaker whose voice is in FILE, 2 to 10 s of it. Asks for labels; "
            "repeatable, at most 4.",
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            help="A recording with several channels: mix (the default), or separate to recognize "
            "each channel for itself and name it."
        ),
    ] = None,
    stages: Annotated[
        str | None, typer.Option(help="Stages to run, such as vad,asr,punctuation; all by default.")
    ] = None,
    itn: Annotated[
        bool, typer.Option("--itn", help="Write Mandarin numbers, dates and amounts in digits.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="One of the served models; the first by default.")
    ] = None,
    hotwords: Annotated[
        str | None,
        typer.Option(
            help="Words to prefer, separated by spaces or commas, or JSON; see docs/models.md."
        ),
    ] = None,
    refine_keywords: Annotated[
        str | None,
        typer.Option(
            "--refine-keywords",
            "--keywords",
            help="Hybrid recognizer: refine drafts that contain these words.",
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language, such as zh or Chinese; see docs/hybrid.md."),
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="Replace a phrase, such as 云梯=>云T; repeatable."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the API key for --url; {KEY_VARIABLES} by default."),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            help="Directory for one file per recording; standard output by default.",
        ),
    ] = None,
    subtitle: Annotated[
        list[str] | None,
        typer.Option(
            help="Option for srt and vtt, such as max_chars=16; also max_lines, min_duration_s, "
            "max_duration_s and max_cps. Repeatable."
        ),
    ] = None,
    job: Annotated[
        bool,
        typer.Option(
            "--job",
            help="Transcribe as jobs of the service at --url ($PARASERVE_URL or "
            "http://localhost:8000 by default), which outlive this command and the service.",
        ),
    ] = False,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
) -> None:
    """Transcribe recordings."""
    from serve_app.cli.known_speakers import read_known_speakers
    from serve_app.cli.transcribe import TranscribeRequest, transcribe_files
    from serve_app.inference.loading import segmentation_options

    settings = _settings(profile, set_)
    request = TranscribeRequest(
        tuple(files),
        url,
        format_,
        stages,
        itn,
        output_dir,
        model,
        hotwords,
        refine_keywords,
        language,
        "\n".join(replace) if replace else None,
        _api_key(url is not None or job, api_key_file),
        tuple(subtitle or ()),
        speakers,
        channels,
        job,
        read_known_speakers(speaker or (), segmentation_options(settings).limits),
    )
    raise typer.Exit(transcribe_files(request, settings))


def _api_key(calls_service: bool, file: Path | None) -> str | None:
    """Returns the API key for a service.

    Raises:
        ConfigurationError: a file was given without a service, or holds no key.
    """
    if calls_service:
        return api_key_of(file)
    if file is not None:
        raise ConfigurationError("--api-key-file requires --url")
    return None


@app.command()
def segments(
    file: Annotated[Path, typer.Argument(help="A recording.", exists=True, dir_okay=False)],
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
) -> None:
    """Print the speech segments of the VAD as JSON: pairs of start and end in ms."""
    from serve_app.cli.transcribe import speech_segments

    found = speech_segments(file, _settings(profile, set_))
    typer.echo(json.dumps([[segment.start_ms, segment.end_ms] for segment in found]))


def _settings(profile: str, assignments: list[str] | None) -> Settings:
    from serve_app.settings import load_settings

    return load_settings(profile, assignments)


def _is_wrong_usage(error: ParaserveError) -> bool:
    """Whether the command or its settings are at fault, rather than a file or the machine."""
    if isinstance(error, PackIncomplete | PackCorrupt | PackFetchFailed | DeviceUnavailable):
        return False
    return isinstance(error, ConfigurationError) or (
        isinstance(error, RequestError) and not isinstance(error, AudioError)
    )


def main() -> None:
    """Runs the command. Our own errors are printed as one line each, without a traceback."""
    use_utf8()
    try:
        app()
    except ParaserveError as error:
        tell("error", str(error))
        sys.exit(WRONG_USAGE if _is_wrong_usage(error) else FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except ValueError as error:
        from pydantic import ValidationError

        if not isinstance(error, ValidationError):
            raise
        from serve_app.settings.problems import problems_of

        for problem in problems_of(error):
            tell("error", problem)
        sys.exit(WRONG_USAGE)


if __name__ == "__main__":
    main()
