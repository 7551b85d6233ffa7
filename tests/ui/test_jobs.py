"""Jobs on the page: transcriptions that go on when it is closed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

from serve_app.ui.texts import TEXTS
from tests.ui.conftest import SAMPLES, OpenPage, open_page
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi
from tests.ui.visiting import ORDER, Json, Visit

CLIP = SAMPLES / "clip.flac"
JOB = f"job_{0:024}"
TEXT = [text for _, _, text in SAID]


@pytest.fixture
def api() -> ScriptedApi:
    return ScriptedApi(jobs={})


@pytest.fixture
def visit(page_url: str) -> Iterator[Visit]:
    with Visit(page_url) as visit:
        yield visit


def all_are_long(opened: OpenPage) -> None:
    """Has the page offer every recording as a job."""
    opened.page.evaluate("() => { window.isLong = () => true; paraserve.update(); }")


def begin(opened: OpenPage, recording: Path = CLIP) -> None:
    all_are_long(opened)
    opened.choose(recording)
    opened.page.click(".ps-as-job")
    opened.wait_for("job")


@pytest.mark.browser
def test_job_outlives_the_page_and_opens_in_the_editor(
    opened: OpenPage, api: ScriptedApi, context: BrowserContext, page_url: str
) -> None:
    begin(opened)
    assert api.uploads == [CLIP.read_bytes()]
    assert json.loads(api.orders[0]["metadata"]) == {"name": CLIP.name}
    state = opened.page.locator(".ps-job-list .ps-file-status")
    expect(state).to_have_text(TEXTS["job_waits"]["zh"].format(count=0))
    opened.page.close()

    api.end_job(JOB, "running")
    again = open_page(context, page_url)
    state = again.page.locator(".ps-job-list .ps-file-status")
    expect(state).to_have_text(TEXTS["job_running"]["zh"].format(percent=50))
    expect(again.page.locator(".ps-open-job")).to_be_hidden()
    api.end_job(JOB)
    again.page.locator(".ps-open-job").click()
    again.wait_for("done")
    assert again.sentences() == TEXT
    expect(again.page.locator(".ps-hint")).to_have_text(TEXTS["no_recording"]["zh"])
    expect(again.page.locator(".ps-player")).to_be_hidden()
    again.page.locator(".ps-edit").first.click()
    again.page.locator(".ps-editor").fill("改过的句子")
    again.page.locator(".ps-editor").press("Enter")
    assert again.sentences()[0].startswith("改过的句子")
    # There is nothing to send once more.
    expect(again.page.locator(".ps-go")).to_be_disabled()
    assert again.complaints == opened.complaints == []


@pytest.mark.browser
def test_recording_that_is_still_on_the_page_plays_with_the_transcript(
    opened: OpenPage, api: ScriptedApi
) -> None:
    begin(opened)
    api.end_job(JOB)
    opened.page.locator(".ps-open-job").click()
    opened.wait_for("done")
    assert opened.sentences() == TEXT
    expect(opened.page.locator(".ps-hint")).to_have_text(TEXTS["hint"]["zh"])
    assert opened.page.locator(".ps-files:not(.ps-job-list) li").count() == 1


@pytest.mark.browser
def test_only_long_recordings_of_a_service_with_jobs_are_offered(
    opened: OpenPage, api: ScriptedApi, context: BrowserContext, page_url: str
) -> None:
    opened.choose(CLIP)
    expect(opened.page.locator(".ps-file-status")).to_have_text(TEXTS["chosen"]["zh"])
    expect(opened.page.locator(".ps-as-job")).to_be_hidden()
    opened.page.evaluate("() => { paraserve.shown.durationS = 601; paraserve.update(); }")
    expect(opened.page.locator(".ps-as-job")).to_be_visible()
    assert opened.page.evaluate("isLong({ file: { size: 20 * 2 ** 20 }, durationS: 0 })")
    api.jobs = None
    other = open_page(context, page_url)
    all_are_long(other)
    other.choose(CLIP)
    expect(other.page.locator(".ps-file-status")).to_have_text(TEXTS["chosen"]["zh"])
    expect(other.page.locator(".ps-as-job")).to_be_hidden()


@pytest.mark.browser
def test_job_is_canceled_and_deleted(
    opened: OpenPage, api: ScriptedApi, context: BrowserContext, page_url: str
) -> None:
    begin(opened)
    opened.page.locator(".ps-cancel-job").click()
    state = opened.page.locator(".ps-job-list .ps-file-status")
    expect(state).to_have_text(TEXTS["job_cancelled"]["zh"])
    opened.page.locator(".ps-job-list .ps-remove").click()
    expect(opened.page.locator(".ps-jobs")).to_be_hidden()
    assert api.jobs == {}
    expect(open_page(context, page_url).page.locator(".ps-jobs")).to_be_hidden()


@pytest.mark.browser
def test_job_that_the_service_removed_is_forgotten(
    opened: OpenPage, api: ScriptedApi, context: BrowserContext, page_url: str
) -> None:
    begin(opened)
    opened.page.close()
    api.jobs = {}
    again = open_page(context, page_url)
    expect(again.page.locator(".ps-jobs")).to_be_hidden()
    assert again.page.evaluate("localStorage.length && paraserve.jobs.jobs.length") == 0


@pytest.mark.browser
def test_failed_job_says_why(opened: OpenPage, api: ScriptedApi) -> None:
    begin(opened)
    error = {"code": "audio_decode_failed", "message": "there is no audio", "param": None}
    api.end_job(JOB, "failed", error=error)
    state = opened.page.locator(".ps-job-list .ps-file-status")
    expected = f"{TEXTS['job_failed']['zh']} there is no audio"
    expect(state).to_have_text(expected, timeout=20_000)


@pytest.mark.browser
def test_refused_job_is_a_problem_of_its_recording(opened: OpenPage, api: ScriptedApi) -> None:
    api.refusal = Refusal(429, "quota_exceeded")
    all_are_long(opened)
    opened.choose(CLIP)
    opened.page.click(".ps-as-job")
    opened.wait_for("failed")
    expect(opened.page.locator(".ps-alert strong")).to_have_text(TEXTS["quota_used_up"]["zh"])
    expect(opened.page.locator(".ps-jobs")).to_be_hidden()


@pytest.mark.browser
def test_damaged_memory_of_the_browser_does_no_harm(
    opened: OpenPage, context: BrowserContext, page_url: str
) -> None:
    opened.page.evaluate('localStorage.setItem(paraserve.jobs._name, \'[{"id": 5}, null, "x"]\')')
    again = open_page(context, page_url)
    assert again.page.evaluate("paraserve.jobs.jobs") == []
    assert again.complaints == []


def create(visit: Visit, upload: str, **others: object) -> httpx.Response:
    body = {"upload": upload, "name": "a.wav", "order": ORDER, **others}
    return visit.http.post("jobs", json=body)


def test_upload_becomes_a_job_once(visit: Visit, api: ScriptedApi) -> None:
    upload = visit.upload(b"RIFF").json()["upload"]
    made = create(visit, upload)
    assert made.json() == {
        "id": JOB,
        "status": "queued",
        "percent": 0,
        "position": 0,
        "detail": "",
    }
    assert api.uploads == [b"RIFF"]
    assert create(visit, upload).json()["problem"] == "upload_lost"
    with Visit(visit.url, session="other1") as other:
        stolen = visit.upload(b"RIFF").json()["upload"]
        assert create(other, stolen).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"upload": "0" * 32, "name": "a", "order": ORDER, "webhook_url": "https://a"},
        {"upload": "../../x", "name": "a", "order": ORDER},
        {"upload": "0" * 32, "name": "a" * 257, "order": ORDER},
        {"upload": "0" * 32, "name": {"path": "/etc/passwd"}, "order": ORDER},
        {"upload": "0" * 32, "name": "a", "order": {**ORDER, "stages": [[]]}},
        [],
    ],
)
def test_other_bodies_than_the_page_sends_are_refused(visit: Visit, body: Json) -> None:
    assert visit.http.post("jobs", json=body).status_code == 400


def test_other_routes_methods_and_types_are_refused(visit: Visit, api: ScriptedApi) -> None:
    api.end_job(JOB, "running")
    for method, path, status in (
        ("PUT", "jobs", 404),
        ("GET", f"jobs/{JOB}", 404),
        ("GET", f"jobs/{JOB}/events", 404),
        ("DELETE", "jobs/upl_1", 404),
        ("DELETE", f"jobs/{JOB}/../../v1/models", 404),
        ("POST", f"jobs/{JOB}/cancel", 415),
        ("POST", "jobs", 415),
        ("GET", f"jobs/{JOB}/result", 409),
    ):
        assert visit.http.request(method, path).status_code == status, (method, path)
    assert api.jobs is not None
    assert api.jobs[JOB]["status"] == "running"
    stranger = httpx.get(f"{visit.url}jobs?id={JOB}", trust_env=False)
    assert stranger.json()["problem"] == "page_unknown"


def test_states_are_those_of_the_ids_that_the_browser_names(visit: Visit, api: ScriptedApi) -> None:
    api.end_job(JOB, "running")
    listed = visit.http.get("jobs", params={"id": [JOB, "job_other", "../models", JOB]}).json()
    assert [(one["id"], one["status"]) for one in listed["jobs"]] == [
        (JOB, "running"),
        ("job_other", "gone"),
    ]
    assert visit.http.get("jobs").json() == {"jobs": []}


def test_key_of_the_visitor_is_asked_for(visit: Visit, api: ScriptedApi) -> None:
    api.end_job(JOB)
    api.key = "psk_x"
    refused = visit.http.get("jobs", params={"id": JOB})
    assert (refused.status_code, refused.json()["problem"]) == (401, "key_missing")
    headers = {"Authorization": "Bearer psk_x"}
    result = visit.http.get(f"jobs/{JOB}/result", headers=headers).json()
    sentences = [json.loads(one) for one in result["sentences"]]
    assert [one["text"] for one in sentences] == TEXT
    assert all(one["words"] for one in sentences)
    assert sentences[0]["words"][0][1] == 500
    gone = visit.http.delete(f"jobs/{JOB}", headers=headers)
    assert gone.json() == {"id": JOB, "status": "gone"}
    assert visit.http.delete(f"jobs/{JOB}", headers=headers).status_code == 200
