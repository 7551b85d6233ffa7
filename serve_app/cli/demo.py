"""`paraserve demo`: the service up, and the bundled recording transcribed through it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from rich.console import Console

from serve_app.cli.console import note
from serve_app.cli.serve import stay_up_until_told, stop_signals, tell_urls
from serve_app.client import Paraserve, Transcription, TranscriptionRequest
from serve_app.inference.fetching import fetch_packs
from serve_app.launch import prepare_environment, running
from serve_app.settings import Settings
from serve_app.transcript.cer import character_error_rate

MAX_CER = 0.03
"""Of the bundled recording on the demo packs; above it the demo has failed."""


@dataclass(frozen=True, slots=True)
class DemoRecording:
    """The bundled recording and what is said in it."""

    path: Path
    text: str


def demo_recording() -> DemoRecording:
    folder = resources.files("serve_app.packs.builtin") / "samples"
    spoken = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    return DemoRecording(
        Path(str(folder / "demo.flac")), "".join(sentence["text"] for sentence in spoken)
    )


def run_demo(settings: Settings, *, stay_up: bool) -> int:
    """Returns the exit code: 0 if the transcript is right.

    Raises:
        PackError: a model pack cannot be had.
        StartFailed: a deployment did not come up.
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
            tell_urls(console, application.url, application.page_url)
            code = stay_up_until_told(application, settings, signals, console)
            return code if right else max(code, 1)
    return 0 if right else 1


def _report(console: Console, answer: Transcription, spoken: str, elapsed_s: float) -> bool:
    for segment in answer.segments:
        console.print(
            f"[cyan]{_clock(segment.start_s)} - {_clock(segment.end_s)}[/cyan]  {segment.text}",
            highlight=False,
            soft_wrap=True,
        )
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
