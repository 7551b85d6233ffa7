"""A web page of another origin that calls the API from a browser."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Page

from loadtests.ports import free_port
from serve_app.api.limits import ApiLimits
from serve_app.api.routes import AccessRules, build_api
from tests.compatibility.conftest import TEXT
from tests.fakes.service import FakeService
from tests.ui.chromium import HOW_TO_GET_IT, chromium, executable
from tests.ui.serving import serving

pytestmark = pytest.mark.browser

CALL = """async ([url, stream]) => {
  const form = new FormData();
  form.append("file", new Blob(["RIFF"]), "a.wav");
  form.append("model", "whisper-1");
  if (stream) form.append("stream", "true");
  try {
    const answer = await fetch(`${url}/v1/audio/transcriptions`, {
      method: "POST", body: form,
      headers: {Authorization: "Bearer unused", "X-Request-ID": "from-a-page"},
    });
    return {
      status: answer.status,
      text: await answer.text(),
      warning: answer.headers.get("x-paraserve-warning"),
    };
  } catch (error) {
    return {failed: error.name};
  }
}"""


@pytest.fixture
def elsewhere() -> Iterator[Page]:
    """Yields a page of an origin that is not the API's."""
    path = executable()
    if path is None:
        pytest.skip(HOW_TO_GET_IT)
    app = FastAPI()
    app.get("/")(lambda: HTMLResponse("<!doctype html><title>elsewhere</title>"))
    with serving(app) as url, chromium(path, microphone=Path("none.wav")) as browser:
        page = browser.new_page()
        page.goto(url)
        yield page


def call(page: Page, tmp_path: Path, *origins: str, stream: bool = False) -> Any:
    limits = ApiLimits(8 * 2**20, request_timeout_s=60, spool_dir=tmp_path)
    logger = logging.getLogger("tests.compatibility")
    app = build_api(FakeService(), limits, logger, access=AccessRules(cors_origins=origins))
    with serving(app) as url:
        return page.evaluate(CALL, [url, stream])


def test_page_of_an_allowed_origin_transcribes_and_streams(elsewhere: Page, tmp_path: Path) -> None:
    origin = elsewhere.evaluate("location.origin")
    answer = call(elsewhere, tmp_path, origin)
    assert answer["status"] == 200
    assert TEXT in answer["text"]
    # Scripts may read the service's own headers.
    assert "demo" in answer["warning"]
    streamed = call(elsewhere, tmp_path, origin, stream=True)
    assert "transcript.text.done" in streamed["text"]


def test_page_of_any_other_origin_is_kept_out(elsewhere: Page, tmp_path: Path) -> None:
    assert call(elsewhere, tmp_path, f"http://127.0.0.1:{free_port()}") == {"failed": "TypeError"}
    assert call(elsewhere, tmp_path) == {"failed": "TypeError"}
