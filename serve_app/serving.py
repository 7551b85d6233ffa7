"""`paraserve serve`: the service on this machine until it is told to stop."""

from __future__ import annotations

import signal
import threading

from rich.console import Console

from serve_app.cluster import prepare_environment, running
from serve_app.pipeline.fetching import fetch_packs
from serve_app.settings import Settings


def serve_until_interrupted(settings: Settings, console: Console) -> None:
    """Starts the service, tells where it answers, and waits for SIGINT or SIGTERM.

    Raises:
        PackError: a model pack cannot be had.
        StartFailed: a deployment did not come up.
    """
    prepare_environment(settings)
    fetch_packs(settings, lambda message: console.print(f"[dim]{message}[/dim]"))
    with running(settings, lambda message: console.print(f"[dim]{message}[/dim]")) as application:
        tell_urls(console, application.url, application.page_url)
        wait_for_signal()
        console.print("[dim]stopping[/dim]")


def tell_urls(console: Console, url: str, page_url: str | None = None) -> None:
    console.print(f"[green]ready[/green] at {url}")
    console.print(f"  transcribe  POST {url}/v1/audio/transcriptions")
    if page_url is not None:
        console.print(f"  web page    {page_url}")
    console.print(f"  API docs    {url}/docs")
    console.print(f"  readiness   {url}/readyz")
    console.print("Ctrl-C stops it.")


def wait_for_signal() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
