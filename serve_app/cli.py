"""The command `paraserve`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from serve_app.cli_batch import batch_app
from serve_app.cli_bench import bench_app
from serve_app.cli_cluster import cluster_app
from serve_app.cli_keys import keys_app
from serve_app.cli_models import models_app
from serve_app.cli_options import ProfileOption, SetOption, checked_secret, read_secret
from serve_app.cli_plan import plan_command
from serve_app.core.errors import ConfigurationError, ParaserveError
from serve_app.settings import DEFAULT_PROFILE, load_settings

app = typer.Typer(
    help="Long Mandarin speech to punctuated, timed text.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.add_typer(cluster_app, name="cluster")
app.add_typer(batch_app, name="batch")
app.command("plan")(plan_command)

_ERRORS = Console(stderr=True)
_KEY_VARIABLE = "OPENAI_API_KEY"
"""The variable that OpenAI's own clients read."""


@app.command()
def serve(profile: ProfileOption = DEFAULT_PROFILE, set_: SetOption = None) -> None:
    """Start the service on this machine and keep it up until Ctrl-C."""
    from serve_app.serving import serve_until_interrupted

    serve_until_interrupted(load_settings(profile, set_), _ERRORS)


@app.command()
def demo(
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
    exit_: Annotated[
        bool, typer.Option("--exit", help="Stop after the transcript; exit code 0 if it is right.")
    ] = False,
) -> None:
    """Start the service and transcribe the bundled recording through it."""
    from serve_app.demo import run_demo

    raise typer.Exit(run_demo(load_settings(profile, set_), stay_up=not exit_))


@app.command()
def transcribe(
    files: Annotated[list[str], typer.Argument(help="Files, directories or glob patterns.")],
    url: Annotated[
        str | None, typer.Option(help="A running service; without it the models run in here.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", "-f", help="text, json, verbose_json, srt or vtt.")
    ] = "text",
    stages: Annotated[
        str | None, typer.Option(help="Stages to run, as vad,asr,punctuation; all by default.")
    ] = None,
    itn: Annotated[
        bool, typer.Option("--itn", help="Write Mandarin numbers, dates and amounts in digits.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="One of the models that are served; the first by default.")
    ] = None,
    hotwords: Annotated[
        str | None,
        typer.Option(help="Words to prefer, with spaces between, or JSON; see docs/models.md."),
    ] = None,
    keywords: Annotated[
        str | None, typer.Option(help="Words whose drafts are refined, for the hybrid recogniser.")
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="What is spoken, as zh or zh-CN; see docs/hybrid.md.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option(help="Write a phrase otherwise, as 云梯=>云T; may be given many times."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"Holds the key for --url; else that in {_KEY_VARIABLE}, if any."),
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="Write one file per recording in here."),
    ] = None,
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
) -> None:
    """Transcribe recordings."""
    from serve_app.transcribing import TranscribeRequest, transcribe_files

    request = TranscribeRequest(
        tuple(files),
        url,
        format_,
        stages,
        itn,
        output_dir,
        model,
        hotwords,
        keywords,
        language,
        "\n".join(replace) if replace else None,
        _api_key(url, api_key_file),
    )
    raise typer.Exit(transcribe_files(request, load_settings(profile, set_), _ERRORS))


def _api_key(url: str | None, file: Path | None) -> str | None:
    """Returns the key for a service; never from the command line, which others see.

    Raises:
        ConfigurationError: there is a file and no service, or the key cannot be one.
    """
    if url is None:
        if file is not None:
            raise ConfigurationError("--api-key-file is of no use without --url")
        return None
    if file is not None:
        return read_secret(file)
    key = os.environ.get(_KEY_VARIABLE, "").strip()
    return checked_secret(key, _KEY_VARIABLE) if key else None


@app.command()
def segments(
    file: Annotated[Path, typer.Argument(help="A recording.", exists=True, dir_okay=False)],
    profile: ProfileOption = DEFAULT_PROFILE,
    set_: SetOption = None,
) -> None:
    """Print the VAD's segments as JSON: [[start_ms, end_ms], ...]."""
    from serve_app.transcribing import speech_segments

    found = speech_segments(file, load_settings(profile, set_))
    typer.echo(json.dumps([[segment.start_ms, segment.end_ms] for segment in found]))


def main() -> None:
    """Runs the command; errors of ours are one line, not a traceback."""
    try:
        app()
    except ParaserveError as error:
        _ERRORS.print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(1)
    except ValidationError as error:
        for problem in error.errors():
            place = ".".join(str(part) for part in problem["loc"]) or "settings"
            _ERRORS.print(f"[red]error:[/red] {place}: {problem['msg']}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
