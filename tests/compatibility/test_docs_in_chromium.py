"""`/docs` in a browser that is let through to the service and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Route

from tests.ui.chromium import HOW_TO_GET_IT, chromium, executable

pytestmark = pytest.mark.browser
pytest.importorskip("fastapi_offline", reason="a dependency of the project: pip install -e .")


def test_page_shows_the_routes_without_other_hosts(api_url: str, tmp_path: Path) -> None:
    path = executable()
    if path is None:
        pytest.skip(HOW_TO_GET_IT)
    elsewhere: list[str] = []
    complaints: list[str] = []

    def guard(route: Route) -> None:
        if route.request.url.startswith(api_url):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    def listen(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    with chromium(path, microphone=tmp_path / "none.wav") as browser:
        page = browser.new_page()
        page.route("**/*", guard)
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{api_url}/docs/")
        operation = page.locator("#operations-audio-createTranscription")
        operation.wait_for()
        operation.click()
        page.get_by_text("timestamp_granularities").first.wait_for()
        page.get_by_text("VerboseTranscription").first.wait_for()
    assert [url for url in elsewhere if not url.startswith("data:")] == []
    assert complaints == []
