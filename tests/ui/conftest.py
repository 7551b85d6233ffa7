"""A page over an API that does what the test says, and a browser to look at it with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    Request,
    sync_playwright,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.ui.uploads import UploadStore
from tests.ui.chromium import HOW_TO_GET_IT, arguments, executable
from tests.ui.scripted_api import ScriptedApi
from tests.ui.serving import serving, serving_page, stored_in

SAMPLES = Path(__file__).parents[2] / "serve_app" / "packs" / "builtin" / "samples"


@dataclass(slots=True)
class OpenPage:
    """A page in a browser.

    Attributes:
        page: the browser's.
        requests: addresses of everything that it asked for.
        complaints: errors of its scripts.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def phase(self) -> str:
        return str(self.page.evaluate("paraserve.state.phase"))

    def wait_for(self, phase: str) -> None:
        self.page.wait_for_function("phase => paraserve.state.phase === phase", arg=phase)

    def sentences(self) -> list[str]:
        return self.page.locator(".ps-sentences .ps-words").all_inner_texts()

    def choose(self, *recordings: Path) -> None:
        self.page.set_input_files(".ps-source input[type=file]", list(recordings))

    def transcribe(self, recording: Path) -> None:
        self.choose(recording)
        self.page.click(".ps-go")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    path = executable()
    if path is None:
        if os.environ.get("TESTS_MUST_RUN") == "1":
            pytest.fail(f"Chromium is missing: {HOW_TO_GET_IT}")
        pytest.skip(f"Chromium is missing: {HOW_TO_GET_IT}")
    return path


# Playwright holds an event loop while it runs: not for longer than a module needs it.
@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium_path: str, vad_example: Path) -> Iterator[Browser]:
    """A browser whose microphone hears a recording."""
    browser = playwright.chromium.launch(
        executable_path=chromium_path, args=arguments(microphone=vad_example)
    )
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def profile(
    playwright: Playwright,
    chromium_path: str,
    vad_example: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BrowserContext]:
    """A browser that speaks Chinese and, unlike a new context, keeps the page's scripts.

    To load and compile Gradio's costs most of a test's time.
    """
    context = playwright.chromium.launch_persistent_context(
        tmp_path_factory.mktemp("profile"),
        executable_path=chromium_path,
        args=arguments(microphone=vad_example),
        locale="zh-CN",
        viewport={"width": 1200, "height": 820},
    )
    context.set_default_timeout(20_000)
    yield context
    context.close()


@pytest.fixture
def context(profile: BrowserContext) -> Iterator[BrowserContext]:
    """The browser, which remembers nothing of an earlier test but the page's files."""
    # Without a page the browser would end.
    first, *_ = profile.pages
    yield profile
    for page in profile.pages:
        if page is not first:
            _forget_visit(page)
    profile.clear_cookies()
    profile.clear_permissions()
    profile.set_offline(False)


def _forget_visit(page: Page) -> None:
    """Closes a page and deletes what it has stored."""
    parts = urlsplit(page.url)
    if parts.scheme in {"http", "https"}:
        origin = f"{parts.scheme}://{parts.netloc}"
        session = page.context.new_cdp_session(page)
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
    page.close()


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi()


@pytest.fixture(scope="module")
def upload_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def uploads(upload_dir: Path) -> UploadStore:
    """What lies on the page's disk: nothing of it has a name there."""
    return stored_in(upload_dir)


class _Switch:
    """The API of the test that runs: Gradio starts too slowly for a page of each test's own."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def shared_page(upload_dir: Path, uploads: UploadStore) -> Iterator[tuple[_Switch, str]]:
    switch = _Switch()
    with (
        serving(switch) as api_url,
        serving_page(api_url, upload_dir, uploads=uploads) as url,
    ):
        yield switch, url


@pytest.fixture
def page_url(api: ScriptedApi, shared_page: tuple[_Switch, str]) -> str:
    switch, url = shared_page
    switch.app = api.app()
    return url


@pytest.fixture
def opened(context: BrowserContext, page_url: str) -> OpenPage:
    return open_page(context, page_url)


def open_page(context: BrowserContext, url: str) -> OpenPage:
    """Returns the page when its form is there."""
    opened = OpenPage(context.new_page())

    def note(request: Request) -> None:
        opened.requests.append(request.url)

    opened.page.on("request", note)
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.goto(url)
    opened.page.wait_for_function(
        "window.paraserve && paraserve.parts.result && paraserve.parts.source"
    )
    opened.page.wait_for_selector("#ps-model:visible, #ps-key:visible, .ps-alert:visible")
    return opened
