"""The installed Chromium, driven by Playwright; its own builds are not downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

HOW_TO_GET_IT = "make .chromium (Debian: apt-get install chromium), or CHROMIUM=/path/to/it"
_NAMES = ("chromium", "google-chrome", "chromium-browser", "google-chrome-stable")


def executable() -> str | None:
    """Returns where Chromium is, None if it is not there."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


def arguments(microphone: Path) -> list[str]:
    """Returns the command line of a browser whose microphone hears a WAV file."""
    return [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--autoplay-policy=no-user-gesture-required",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    ]


@contextmanager
def chromium(path: str, microphone: Path) -> Iterator[Browser]:
    """Yields a browser without a window.

    Args:
        path: of the executable.
        microphone: a WAV file that its microphone hears.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments(microphone))
        try:
            yield browser
        finally:
            browser.close()
