"""Pictures of the page for the documentation: `make screenshots`.

Starts the demo service with the page, uses it as a visitor does, and takes the pictures in
Chromium. Nothing on the page is changed for them. Needs Chinese fonts (Debian: fonts-noto-cjk).
With `--local` the API and the models run in this process, without Ray.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import wave
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from playwright.sync_api import Browser, ViewportSize

from loadtests.ports import free_port
from loadtests.recordings import recording
from serve_app.api.models import offer_of
from serve_app.api.routes import assemble_api
from serve_app.api.service import TranscriptionJob
from serve_app.core.records import (
    HotwordCheck,
    RecognitionOptions,
    RequestContext,
    StageReadiness,
)
from serve_app.inference.local import LocalTranscriber
from serve_app.launch import prepare_environment, running
from serve_app.packs import PackStore
from serve_app.settings import Settings
from serve_app.transcript.transcript import TranscriptEvent
from serve_app.ui.client import ApiClient
from serve_app.ui.page import PageLimits, build_page
from tests.ui.chromium import HOW_TO_GET_IT, chromium, executable
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.serving import serving, stored_in

TARGET = Path(__file__).parents[2] / "docs" / "images"
_DESKTOP: ViewportSize = {"width": 1180, "height": 760}
_PHONE: ViewportSize = {"width": 390, "height": 844}
_RATE_HZ = 16_000
_NUM_REPEATS = 16
_SETTLED_MS = 700


@dataclass(frozen=True, slots=True)
class _Picture:
    name: str
    locale: str
    act: Callable[[OpenPage, Path], None]
    scheme: Literal["light", "dark"] = "light"
    on_phone: bool = False


def _idle(opened: OpenPage, directory: Path) -> None:
    opened.page.wait_for_selector("#ps-stages:visible")


def _run(opened: OpenPage, directory: Path) -> None:
    opened.choose(directory / "weekly-meeting.wav", SAMPLES / "clip.flac")
    opened.page.wait_for_function("paraserve.player.peaks")
    opened.page.click(".ps-go")
    opened.page.wait_for_function(
        "paraserve.state.phase === 'running' && paraserve.state.sentences.length >= 8"
    )


def _finish(opened: OpenPage, directory: Path) -> None:
    opened.choose(SAMPLES / "demo.flac")
    opened.page.wait_for_function("paraserve.player.peaks")
    opened.page.click(".ps-go")
    opened.wait_for("done")


def _run_and_hear(opened: OpenPage, directory: Path) -> None:
    _finish(opened, directory)
    opened.page.locator(".ps-time").nth(2).click()
    opened.page.mouse.move(0, 0)
    opened.page.wait_for_function("paraserve.player.positionS > 12")


def _run_and_edit(opened: OpenPage, directory: Path) -> None:
    _finish(opened, directory)
    opened.page.locator(".ps-uncertain input").check()
    opened.page.get_by_role("searchbox").fill("项目")
    opened.page.locator(".ps-edit").nth(1).click()
    opened.page.locator(".ps-editor").press("End")
    opened.page.locator(".ps-editor").press("ArrowLeft")
    opened.page.keyboard.type("和风险")


def _fail(opened: OpenPage, directory: Path) -> None:
    opened.transcribe(directory / "会议记录.mp3")
    opened.wait_for("failed")


def _hear_on_phone(opened: OpenPage, directory: Path) -> None:
    _run_and_hear(opened, directory)
    opened.page.locator("section.ps-result").evaluate("one => one.scrollIntoView()")


PICTURES = (
    _Picture("idle", "zh-CN", _idle),
    _Picture("running", "zh-CN", _run),
    _Picture("done", "en-US", _run_and_hear),
    _Picture("editing", "zh-CN", _run_and_edit),
    _Picture("error", "zh-CN", _fail),
    _Picture("dark", "en-US", _run_and_hear, scheme="dark"),
    _Picture("phone", "zh-CN", _hear_on_phone, on_phone=True),
)


def take(browser: Browser, url: str) -> None:
    """Writes the pictures, each of a page of its own."""
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _write_long_recording(directory / "weekly-meeting.wav")
        (directory / "会议记录.mp3").write_text("no audio at all " * 100)
        for picture in PICTURES:
            with browser.new_context(
                locale=picture.locale,
                viewport=_PHONE if picture.on_phone else _DESKTOP,
                color_scheme=picture.scheme,
                device_scale_factor=1,
            ) as context:
                opened = open_page(context, url)
                picture.act(opened, directory)
                if picture.name != "running":
                    opened.page.wait_for_timeout(_SETTLED_MS)
                opened.page.screenshot(path=TARGET / f"page-{picture.name}.png")


def _write_long_recording(path: Path) -> None:
    """Writes the built-in sample many times over: the demo model is done with one too soon."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE_HZ)
    with av.open(str(SAMPLES / "demo.flac")) as container:
        frames = [
            resampled.to_ndarray().ravel()
            for frame in container.decode(audio=0)
            for resampled in resampler.resample(frame)
        ]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(np.tile(np.concatenate(frames), _NUM_REPEATS).tobytes())


class _LocalService:
    """The API's service over the models in this process."""

    def __init__(self, settings: Settings) -> None:
        self.offer = offer_of(settings)
        self._transcriber = LocalTranscriber(settings)

    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        return self._transcriber.check_hotwords(recognition_options)

    async def transcribe(self, job: TranscriptionJob) -> AsyncGenerator[TranscriptEvent]:
        events = self._transcriber.transcribe(
            job.audio,
            job.stages,
            job.context.request_id,
            job.recognition_options,
            job.speech_detection,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def readiness(self) -> list[StageReadiness]:
        return [StageReadiness(stage, "cpu", "demo", "") for stage in self.offer.stages]


def _take_locally(browser: Browser, settings: Settings) -> None:
    api = assemble_api(_LocalService(settings), settings, logging.getLogger("screenshots"))
    with tempfile.TemporaryDirectory() as name, serving(api) as api_url:
        limits = PageLimits(4, 8, settings.audio.max_upload_bytes)
        uploads = stored_in(Path(name), 4 * settings.audio.max_upload_bytes)
        page = build_page(ApiClient(api_url, timeout_s=60), uploads, limits)
        with serving(page) as url:
            take(browser, f"{url}/")


def main(arguments: list[str]) -> int:
    path = executable()
    if path is None:
        print(f"Chromium is missing: {HOW_TO_GET_IT}", file=sys.stderr)
        return 1
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "http": {"port": free_port()},
            "cluster": {"num_cpus": 4},
            "ui": {"enabled": True},
            "auth": {"mode": "off"},
        }
    )
    if arguments == ["--local"]:
        with chromium(path, microphone=SAMPLES / "clip.flac") as browser:
            _take_locally(browser, settings)
        return 0
    prepare_environment(settings)
    heard = recording("vad_example.wav", PackStore())
    with running(settings) as application, chromium(path, microphone=heard) as browser:
        take(browser, application.page_url or "")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
