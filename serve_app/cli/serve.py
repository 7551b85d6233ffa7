"""`paraserve serve` and `paraserve demo`: run the service on this machine until it is stopped."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.text import Text

from serve_app.cli.console import note, tell
from serve_app.cli.logs import logs_directory
from serve_app.client import Paraserve, Transcription, TranscriptionRequest
from serve_app.core.in_flight import num_in_flight
from serve_app.hosting.restarts import Restarts
from serve_app.hosting.run_directory import own_run_directory
from serve_app.hosting.stopping import (
    Drain,
    ExitCode,
    StopRequested,
    StopSignals,
    end_now,
    wait_until_sent,
)
from serve_app.inference.loading import fetch_packs
from serve_app.launch import RunningApplication, prepare_environment, running
from serve_app.packs.registry import demo_warning, is_demo_pack
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate

_POLL_S = 0.5


def serve_until_interrupted(settings: Settings, console: Console, restarts: Restarts) -> int:
    """Starts the service, prints its URLs, and waits for SIGINT or SIGTERM.

    Args:
        settings: of the service.
        console: for messages.
        restarts: what to do when the node has died.

    Returns:
        The exit code: an `ExitCode`, or 128 and the signal's number where a signal came
        before the service was up.

    Raises:
        ConfigurationError: API keys are required and there is no keys file.
        PackError: a model pack is not available.
        StartFailed: the port is in use, or a deployment did not start.
    """
    signals = stop_signals(console)
    signals.install()

    def progress(message: str) -> None:
        note(message, console)

    try:
        prepare_environment(settings, restarts.expected_start_s if restarts.is_restarted else None)
        fetch_packs(settings, progress)
        with running(settings, progress, shares_port=restarts.is_restarted) as application:
            restarts.ready()
            # Ray has replaced the handlers with its own.
            signals.install()
            signals.started()
            for pack in filter(is_demo_pack, settings.recognizer.packs):
                tell("warning", demo_warning(pack), console)
            print_urls(console, application)
            return serve_until_stopped(application, settings, signals, console, restarts)
    except StopRequested as stop:
        return 128 + stop.number
    except SystemExit as stop:
        # Ray's handler, while Ray was starting.
        if stop.code != signal.SIGTERM:
            raise
        return 128 + signal.SIGTERM


def print_urls(console: Console, application: RunningApplication) -> None:
    url, page_url, run = application.url, application.page_url, application.run
    console.print(Text("ready", "green").append_text(Text(f" at {url}", "default")))
    console.print(f"  transcribe  POST {url}/v1/audio/transcriptions")
    if page_url is not None:
        console.print(f"  web page    {page_url}")
    console.print(f"  API docs    {url}/docs")
    console.print(f"  readiness   {url}/readyz")
    if run is not None:
        console.print(f"  logs        paraserve logs --follow, or {logs_directory(run)}")
    console.print("Ctrl-C stops it.")


def stop_signals(console: Console) -> StopSignals:
    """Returns signal handlers; a second signal stops the service without waiting."""

    def at_once() -> None:
        run = own_run_directory()
        number = 0 if run is None else num_in_flight(run.path)
        console.print(f"stopping without waiting; {number} requests were running")
        end_now(run, ExitCode.REQUESTS_CUT if number else ExitCode.DONE)

    return StopSignals(at_once)


def serve_until_stopped(
    application: RunningApplication,
    settings: Settings,
    signals: StopSignals,
    console: Console,
    restarts: Restarts | None = None,
) -> ExitCode:
    """Waits for a signal, then for the end of all running requests.

    If the node dies, this process becomes the command again as often as `restarts` allows, and
    else exits with `ExitCode.NODE_LOST`.
    """
    while not signals.is_stop_requested:
        loss = application.loss()
        if loss is not None and restarts is not None and restarts.may_restart():
            tell("warning", f"the Ray node has died: {loss}; restarting", console)
            restarts.restart(settings.http, application.run)
        _end_if_lost(application, loss, console)
        time.sleep(_POLL_S)
    run = application.run
    if run is None:
        note("exiting; the application stays on its cluster", console)
        return ExitCode.DONE
    limit_s = settings.http.drain_timeout_s
    if limit_s is None:
        limit_s = settings.ingress.request_timeout_s
    note("stopping", console)
    drain = Drain(run.path, limit_s, lambda message: console.print(message, highlight=False))
    num_cut = drain.run(application.loss)
    _end_if_lost(application, application.loss(), console)
    wait_until_sent(settings.http.port)
    if num_cut:
        tell(
            "error",
            f"{num_cut} requests were not finished after {limit_s:.0f} s (http.drain_timeout_s)",
            console,
        )
        return ExitCode.REQUESTS_CUT
    return ExitCode.DONE


def _end_if_lost(application: RunningApplication, loss: str | None, console: Console) -> None:
    if loss is None:
        return
    logs = "" if application.run is None else f"; its logs: {application.run.ray}"
    tell("error", f"the Ray node has died: {loss}{logs}", console)
    end_now(application.run, ExitCode.NODE_LOST)


MAX_CER = 0.03
"""Of the bundled recording with the demo packs; above it the demo fails."""


@dataclass(frozen=True, slots=True)
class DemoRecording:
    """The bundled recording and its text."""

    path: Path
    text: str


def demo_recording() -> DemoRecording:
    folder = resources.files("serve_app.packs.builtin") / "samples"
    spoken = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    return DemoRecording(
        Path(str(folder / "demo.flac")), "".join(sentence["text"] for sentence in spoken)
    )


def run_demo(settings: Settings, *, stay_up: bool) -> int:
    """Returns the exit code: 0 if the transcript is correct.

    Raises:
        PackError: a model pack is not available.
        StartFailed: a deployment did not start.
    """
    console = Console()
    prepare_environment(settings)

    def progress(message: str) -> None:
        note(f"{time.strftime('%H:%M:%S')}  {message}", console)

    fetch_packs(settings, progress)
    with running(settings, progress) as application:
        recording = demo_recording()
        progress(f"posting {recording.path.name} ({recording.path.stat().st_size} bytes)")
        started = time.monotonic()
        model = next(iter(settings.recognizer.models))
        with Paraserve(application.url, "", timeout_s=600.0) as service:
            answer = service.transcribe(recording.path, TranscriptionRequest(model=model))
        elapsed_s = time.monotonic() - started
        right = _report(console, answer, recording.text, elapsed_s)
        if stay_up:
            signals = stop_signals(console)
            signals.install()
            signals.started()
            print_urls(console, application)
            code = serve_until_stopped(application, settings, signals, console)
            return code if right else max(code, 1)
    return 0 if right else 1


def _report(console: Console, answer: Transcription, spoken: str, elapsed_s: float) -> bool:
    for segment in answer.segments:
        times = Text(f"{_clock(segment.start_s)} - {_clock(segment.end_s)}", "cyan")
        console.print(times.append(f"  {segment.text}", "default"), soft_wrap=True)
    cer = character_error_rate(spoken, answer.text)
    duration_s = answer.duration_s
    console.print(
        f"CER {cer:.2%} against the known text (at most {MAX_CER:.0%});  "
        f"{duration_s:.1f} s of audio in {elapsed_s:.2f} s;  "
        f"RTF {elapsed_s / duration_s:.4f}, RTFx {duration_s / elapsed_s:.0f}",
        highlight=False,
        soft_wrap=True,
    )
    return cer <= MAX_CER and not answer.partial


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes):02d}:{rest:05.2f}"
