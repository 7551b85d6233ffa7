"""The page as it is deployed: beside the API on Ray Serve, behind HAProxy."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.launch import RunningApplication
from serve_app.transcript.cer import character_error_rate
from serve_app.ui.texts import TEXTS
from tests.ui.conftest import SAMPLES, chromium_path, context, open_page, playwright, profile

__all__ = ["chromium_path", "context", "playwright", "profile"]  # fixtures

pytestmark = [pytest.mark.browser, pytest.mark.ray]


@pytest.fixture
def url(application: RunningApplication) -> str:
    assert application.page_url is not None
    return application.page_url


def files_in(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_known_recording_becomes_its_text(
    context: BrowserContext, url: str, page_upload_dir: Path
) -> None:
    opened = open_page(context, url)
    spoken = json.loads((SAMPLES / "demo.json").read_text(encoding="utf-8"))
    opened.transcribe(SAMPLES / "demo.flac")
    opened.wait_for("done")
    text = "".join(opened.sentences())
    assert character_error_rate("".join(said["text"] for said in spoken), text) <= 0.03
    assert files_in(page_upload_dir) == []
    assert opened.complaints == []


def test_model_without_a_use_for_hotwords_is_offered_without_them(
    context: BrowserContext, url: str, application: RunningApplication
) -> None:
    with httpx.Client(base_url=application.url, trust_env=False) as client:
        models = client.get("/v1/models").json()["data"]
    assert models[0] == {**models[0], "id": "paraformer-demo", "hotwords": False}
    opened = open_page(context, url)
    expect(opened.page.locator("#ps-hotwords")).to_be_hidden()
    options = opened.page.locator("#ps-model option")
    expect(options).to_have_count(1)
    expect(options).to_contain_text("paraformer-demo")


def test_sentences_of_a_real_recording_only_grow(
    context: BrowserContext, url: str, vad_example: Path
) -> None:
    opened = open_page(context, url)
    opened.page.evaluate(
        "() => { window.counts = []; new MutationObserver(() => counts.push("
        "document.querySelectorAll('.ps-sentences li').length)).observe("
        "document.querySelector('.ps-sentences'), {childList: true}); }"
    )
    opened.transcribe(vad_example)
    opened.wait_for("done")
    counts = opened.page.evaluate("counts")
    # How many steps there are is up to the service's speed.
    assert counts == sorted(counts)
    assert counts[-1] == len(opened.sentences()) > 1
    assert opened.page.evaluate("paraserve.player.durationS") == pytest.approx(70.47, abs=0.1)


def test_broken_file_is_reported_in_clear_words(
    context: BrowserContext, url: str, tmp_path: Path, page_upload_dir: Path
) -> None:
    opened = open_page(context, url)
    broken = tmp_path / "notes.mp3"
    broken.write_text("these are no sounds " * 100)
    opened.transcribe(broken)
    opened.wait_for("failed")
    expect(opened.page.locator(".ps-alert")).to_contain_text(TEXTS["not_audio"]["zh"])
    assert files_in(page_upload_dir) == []


def test_words_have_times_and_confidences(context: BrowserContext, url: str) -> None:
    opened = open_page(context, url)
    opened.page.click(".ps-sample")
    opened.wait_for("done")
    words = opened.page.evaluate("paraserve.state.sentences.flatMap(one => one.words)")
    starts = [start_ms for _, start_ms, _, _ in words]
    assert len(words) > 100
    assert starts == sorted(starts)
    assert all(0 < confidence <= 1 for *_, confidence in words)


def test_root_leads_to_the_page(url: str, application: RunningApplication) -> None:
    answer = httpx.get(application.url, follow_redirects=True, trust_env=False)
    assert str(answer.url) == url
    assert "paraserveFacts" in answer.text


def test_only_the_pages_own_routes_are_open(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("config").status_code == 200
        for path in ("gradio_api/info", "gradio_api/openapi.json", "gradio_api/file=/etc/passwd"):
            assert client.get(path).status_code == 404
