"""Against a page that is served: what it reads, keeps and tells, and to whom."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serve_app.ui.page import PageLimits
from serve_app.ui.sessions import SessionLimits
from serve_app.ui.uploads import UploadStore
from tests.ui.scripted_api import SAID, ScriptedApi
from tests.ui.serving import MAX_UPLOAD_BYTES, serving, serving_page
from tests.ui.visiting import OCTETS, ORDER, Json, Visit, connection, request_head, status_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SECRET = b"what only the server may read"
PROMPT_S = 10.0
"""Far more than a page that is not blocked needs for an answer."""


NO_EVENTS = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"[" * 60_000,
    b'{"data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    b'{"\\ud800": {}}',
    b"1" * 60_000,
    b'{"fn_index": ' + b"9" * 50_000 + b"}",
    b'{"fn_index": NaN, "data": []}',
    b'{"fn_index": 1e400, "data": []}',
    b'{"fn_index": true, "data": [null, null]}',
    b'{"fn_index": -1, "data": []}',
    b'{"fn_index": 6, "data": [], "session_hash": "a"}',
    b"\xff\xfe{}",
    b'{"data": [null], "fn_index": 0}',
    b'{"data": ["\\ud800"], "fn_index": 0, "session_hash": "a1b2c3"}',
    b'{"data": [null], "fn_index": 0, "session_hash": "../x"}',
    b'{"data": [null], "fn_index": 0, "session_hash": ["a"]}',
    b'{"data": [null], "fn_index": 0, "session_hash": "a", "trigger_id": {}}',
    b'{"data": [null, null], "fn_index": 0, "session_hash": "a1b2c3"}',
    b'{"data": {"0": 1}, "fn_index": 0, "session_hash": "a1b2c3"}',
]


@pytest.fixture
def visit(page_url: str) -> Iterator[Visit]:
    with Visit(page_url) as visit:
        yield visit


@pytest.fixture
def other(page_url: str) -> Iterator[Visit]:
    with Visit(page_url, session="d4e5f6") as visit:
        yield visit


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secrets" / "keys.yaml"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def file_value(path: str, **others: object) -> Json:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **others}


def assert_untouched(visit: Visit, api: ScriptedApi, directory: Path) -> None:
    started = time.monotonic()
    assert visit.http.get("config").status_code == 200
    assert time.monotonic() - started < PROMPT_S
    assert [path for path in directory.rglob("*") if path.is_file()] == []
    assert api.uploads == []


@contextmanager
def prompt(url: str) -> Iterator[None]:
    """Checks all the while that the page answers others."""
    done = threading.Event()
    waits: list[float] = []

    def ask() -> None:
        with httpx.Client(base_url=url, timeout=2 * PROMPT_S, trust_env=False) as http:
            is_last = False
            while not is_last:
                is_last = done.is_set()
                started = time.monotonic()
                try:
                    http.get("theme.css")
                finally:
                    waits.append(time.monotonic() - started)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        done.set()
        asking.join()
    assert max(waits) < PROMPT_S


class TestFilesOfTheServer:
    @pytest.fixture(params=["absolute", "upwards", "link", "proc", "device", "pipe", "directory"])
    def path(self, request: pytest.FixtureRequest, secret: Path, upload_dir: Path) -> str:
        """A path to what the page must not read; the last ones have no end."""
        kind = request.param
        store = next(upload_dir.iterdir())
        if kind == "link":
            (store / "link").symlink_to(secret)
            return str(store / "link")
        if kind == "pipe":
            os.mkfifo(secret.with_name("pipe"))
            return str(secret.with_name("pipe"))
        if kind == "directory":
            return str(secret.parent)
        upwards = os.path.relpath(secret, store)
        return {
            "absolute": str(secret),
            "upwards": str(store / upwards),
            "proc": "/proc/self/environ",
            "device": "/dev/zero",
        }[kind]

    def test_no_path_is_read_copied_or_sent(
        self, page_url: str, path: str, api: ScriptedApi, upload_dir: Path
    ) -> None:
        with Visit(page_url) as visit, prompt(page_url):
            response = visit.submit(file_value(path, run="ab"))
            assert (response.status_code, response.json()["problem"]) == (400, "refused")
            for link in upload_dir.rglob("link"):
                link.unlink()
            assert_untouched(visit, api, upload_dir)

    @pytest.mark.parametrize("function", ["load", "ask", "submit"])
    def test_no_input_of_any_function_takes_a_file(
        self,
        visit: Visit,
        function: str,
        secret: Path,
        api: ScriptedApi,
        upload_dir: Path,
    ) -> None:
        file = file_value(str(secret))
        named: Json = {"upload": "0" * 32, "run": "ab", "key": "", "order": ORDER}
        values: list[object] = [
            file,
            [file],
            {"a": [[file]]},
            *({**named, name: file} for name in named),
            *({**named, "order": {**ORDER, name: file}} for name in ORDER),
            {**named, "order": {**ORDER, "stages": [file]}},
            {**named, "path": str(secret)},
            {**named, "order": {**ORDER, "path": str(secret)}},
        ]
        for value in values:
            assert visit.join(function, [value]).status_code == 400
        assert_untouched(visit, api, upload_dir)

    @pytest.mark.parametrize("field", ["event_data", "meta", "oauth_token", "request"])
    def test_fields_that_the_page_does_not_send_are_dropped(
        self, visit: Visit, field: str, secret: Path, api: ScriptedApi, upload_dir: Path
    ) -> None:
        response = visit.join("load", [""], **{field: file_value(str(secret))})
        assert response.status_code == 200
        assert_untouched(visit, api, upload_dir)

    def test_no_address_is_fetched(self, visit: Visit, api: ScriptedApi, upload_dir: Path) -> None:
        asked: list[str] = []

        async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                asked.append(str(scope["path"]))
                await PlainTextResponse("sounds")(scope, receive, send)

        with serving(elsewhere) as url:
            for value in (
                file_value(f"{url}/a.wav"),
                file_value("a.wav", url=f"{url}/a.wav"),
                file_value("file:///etc/passwd"),
                file_value(f"{url}/a.wav", is_stream=True),
            ):
                assert visit.submit(value).status_code == 400
            assert_untouched(visit, api, upload_dir)
        assert asked == []

    def test_second_name_of_a_key_smuggles_nothing(
        self, visit: Visit, secret: Path, api: ScriptedApi, upload_dir: Path
    ) -> None:
        file = json.dumps(file_value(str(secret)))
        event = json.dumps(visit.event("submit", [1]))
        for data in (
            event.replace("[1]", f"[{file}]").replace("{", '{"data": [null], ', 1),
            event.replace("[1]", "[" + file.replace('"path"', '"p\\u0061th"') + "]"),
        ):
            assert visit.send(data.encode()).status_code == 400
        assert_untouched(visit, api, upload_dir)


class TestKeys:
    @pytest.fixture
    def api(self) -> ScriptedApi:
        return ScriptedApi(key="psk_right")

    @pytest.mark.parametrize("key", ["", "psk_wrong", "x" * 5000, "psk_\xfc"])
    def test_nothing_is_taken_in_without_the_right_key(
        self, page_url: str, uploads: UploadStore, key: str, upload_dir: Path, api: ScriptedApi
    ) -> None:
        with Visit(page_url) as visit:
            headers = {"Content-Type": OCTETS, "Cookie": visit.cookie, "Content-Length": "4000000"}
            if key:
                headers["Authorization"] = f"Bearer {key}"
            with connection(page_url) as opened:
                # The answer comes before the body does.
                opened.sendall(request_head("POST", "upload", **headers))
                assert status_of(opened) == 401
            assert uploads.num_bytes == 0
            assert_untouched(visit, api, upload_dir)

    @pytest.mark.parametrize("key", ["", "psk_wrong"])
    def test_no_file_is_read_without_the_right_key(
        self, page_url: str, key: str, secret: Path, api: ScriptedApi, upload_dir: Path
    ) -> None:
        with Visit(page_url, key=key) as visit:
            assert visit.submit(file_value(str(secret))).status_code == 400
            assert_untouched(visit, api, upload_dir)

    def test_line_is_not_for_those_without_a_recording(self, page_url: str) -> None:
        with Visit(page_url) as visit:
            for _ in range(20):
                response = visit.submit_upload("0" * 32)
                assert (response.status_code, response.json()["problem"]) == (409, "upload_lost")


def test_each_sentence_is_sent_once(visit: Visit, api: ScriptedApi) -> None:
    api.said = tuple((float(n), n + 0.9, f"第{n}句，只传一次。") for n in range(107))
    name = visit.upload(b"sounds").json()["upload"]
    assert visit.submit_upload(name).status_code == 200
    sent = json.dumps(list(visit.results()), ensure_ascii=False)
    assert [sent.count(f"第{n}句，") for n in range(107)] == [1] * 107
    assert len(sent) < 80_000


class TestOtherVisitors:
    def test_upload_belongs_to_its_visitor(
        self, visit: Visit, other: Visit, api: ScriptedApi
    ) -> None:
        name = visit.upload(b"sounds of one").json()["upload"]
        stolen = other.submit_upload(name)
        assert (stolen.status_code, stolen.json()["problem"]) == (409, "upload_lost")
        assert visit.submit_upload(name).status_code == 200
        assert list(visit.shown())[-1]["state"] == "done"
        assert api.uploads == [b"sounds of one"]
        # It is used up.
        assert visit.submit_upload(name).status_code == 409

    def test_guessed_page_is_the_guessers_own(
        self, visit: Visit, page_url: str, api: ScriptedApi
    ) -> None:
        api.hold_after = 1
        name = visit.upload(b"sounds").json()["upload"]
        assert visit.submit_upload(name).status_code == 200
        results = visit.shown()
        while SAID[0][2] not in json.dumps(next(results), ensure_ascii=False):
            pass
        with Visit(page_url, session=visit.session) as guesser:
            query = {"session_hash": visit.session}
            with guesser.http.stream("GET", "gradio_api/queue/data", params=query) as stream:
                heard = ""
                with suppress(httpx.RemoteProtocolError):  # Gradio breaks off: no such session
                    for piece in stream.iter_text():
                        heard += piece
            assert SAID[0][2] not in heard
            event: Json = {"session_hash": visit.session, "event_id": "0" * 32}
            event |= {"fn_index": visit.functions["submit"]}
            assert guesser.send(json.dumps(event).encode(), "gradio_api/cancel").is_success
        # The guesser's page is closed; the visitor's still runs.
        api.release()
        assert list(results)[-1]["state"] == "done"

    @pytest.mark.parametrize("cookie", ["", "paraserve_visitor=", "paraserve_visitor=0; a=b"])
    def test_request_without_a_session_is_refused(self, page_url: str, cookie: str) -> None:
        with httpx.Client(base_url=page_url, trust_env=False) as http:
            http.headers["Cookie"] = cookie
            json_type = {"Content-Type": "application/json"}
            octets = {"Content-Type": OCTETS}
            for response in (
                http.get("gradio_api/heartbeat/abc"),
                http.get("gradio_api/queue/data?session_hash=abc"),
                http.post("gradio_api/queue/join", content=b"{}", headers=json_type),
                http.post("gradio_api/cancel", content=b"{}", headers=json_type),
                http.post("upload", content=b"x", headers=octets),
            ):
                assert (response.status_code, response.json()["problem"]) == (403, "page_unknown")

    def test_cookie_is_new_for_each_and_out_of_reach_of_scripts(self, page_url: str) -> None:
        given = [httpx.get(page_url).headers["Set-Cookie"] for _ in range(2)]
        assert given[0] != given[1]
        assert all("HttpOnly" in one and "SameSite=Lax" in one for one in given)


class TestUploadRoute:
    def test_forms_are_not_read(self, visit: Visit, uploads: UploadStore, page_url: str) -> None:
        head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        bodies = {
            "empty": b"",
            "no boundary": b"no boundary at all",
            "a form": head + b"x\r\n--b--\r\n",
            "a thousand parts": (head + b"x\r\n") * 1000 + b"--b--\r\n",
            "long header": b"--b\r\nX: " + b"h" * 1_000_000,
            "endless field": head + b"v" * 4_000_000,
        }
        with prompt(page_url):
            for kind in ("multipart/form-data", "multipart/form-data; boundary=b", "text/plain"):
                for name, body in bodies.items():
                    response = visit.upload(body, **{"Content-Type": kind})
                    assert response.status_code == 415, name
                    assert response.json()["problem"] == "upload_failed", name
        assert uploads.num_bytes == 0
        assert visit.http.post("gradio_api/upload", content=b"x").status_code == 404

    def test_length_must_be_declared(self, visit: Visit, page_url: str) -> None:
        for length, status in (
            ({"Transfer_Encoding": "chunked"}, 411),
            ({}, 411),
            ({"Content_Length": "0"}, 400),
            ({"Content_Length": "9999999999999"}, 413),
            ({"Content_Length": "-5"}, 400),
            ({"Content_Length": "1e3"}, 400),
        ):
            with connection(page_url) as opened:
                headers = {"Content_Type": OCTETS, "Cookie": visit.cookie, **length}
                opened.sendall(request_head("POST", "upload", **headers))
                assert status_of(opened) == status, length

    def test_upload_that_breaks_off_leaves_nothing(
        self, visit: Visit, page_url: str, uploads: UploadStore
    ) -> None:
        headers = {"Content_Type": OCTETS, "Cookie": visit.cookie, "Content_Length": "3000000"}
        with connection(page_url) as opened:
            opened.sendall(request_head("POST", "upload", **headers) + bytes(100_000))
            wait_until(lambda: uploads.num_bytes == 3_000_000)
        wait_until(lambda: uploads.num_bytes == 0)

    def test_one_visitor_holds_a_few_uploads(self, visit: Visit, other: Visit) -> None:
        names = [visit.upload(b"sounds").json()["upload"] for _ in range(4)]
        refused = visit.upload(b"sounds")
        assert (refused.status_code, refused.json()["problem"]) == (503, "page_busy")
        assert other.upload(b"sounds").status_code == 200
        assert visit.submit_upload(names[0]).status_code == 200
        list(visit.results())
        assert visit.upload(b"sounds").status_code == 200

    def test_closing_the_page_or_canceling_drops_queued_requests(
        self, page_url: str, uploads: UploadStore, api: ScriptedApi
    ) -> None:
        api.hold_after = 0
        # The page is the module's: earlier tests have left uploads.
        num_ready, num_bytes = uploads.num_ready, uploads.num_bytes
        with ExitStack() as stack:
            visits = [
                stack.enter_context(Visit(page_url, session=f"abc{number}")) for number in range(5)
            ]
            for visit in visits:
                name = visit.upload(b"sounds").json()["upload"]
                assert visit.submit_upload(name).status_code == 200
            # Four run, the fifth waits.
            wait_until(lambda: uploads.num_ready == num_ready + 1)
            event = {"session_hash": visits[4].session, "event_id": "0" * 32, "fn_index": 5}
            visits[4].send(json.dumps(event).encode(), "gradio_api/cancel")
            assert uploads.num_ready == num_ready
        wait_until(lambda: uploads.num_bytes == num_bytes)


class TestEvents:
    @pytest.mark.parametrize("route", ["gradio_api/queue/join", "gradio_api/cancel"])
    def test_request_that_is_not_an_event_gets_one_clear_answer(
        self, visit: Visit, page_url: str, route: str
    ) -> None:
        with prompt(page_url):
            for body in NO_EVENTS:
                response = visit.send(body, route)
                assert response.status_code == 400, body[:80]
                assert response.json()["problem"] == "refused", body[:80]
                assert response.json()["detail"], body[:80]

    def test_large_event_is_not_read(self, visit: Visit, page_url: str) -> None:
        with connection(page_url) as opened:
            headers = {"Content_Type": "application/json", "Cookie": visit.cookie}
            headers["Content_Length"] = "3000000"
            opened.sendall(request_head("POST", "gradio_api/queue/join", **headers))
            assert status_of(opened) == 413

    def test_form_of_another_site_sends_no_event(self, visit: Visit) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            headers = {"Content-Type": kind}
            response = visit.http.post("gradio_api/queue/join", content=b"{}", headers=headers)
            assert response.status_code == 415

    def test_flood_of_one_visitor_is_not_anothers(self, api: ScriptedApi, tmp_path: Path) -> None:
        bounded = SessionLimits(events_per_s=0, max_events_at_once=5)
        limits = PageLimits(4, 8, MAX_UPLOAD_BYTES, bounded)
        with (
            serving(api.app()) as api_url,
            serving_page(api_url, tmp_path, limits) as url,
            Visit(url) as visit,
            Visit(url, session="d4e5f6") as other,
        ):
            with prompt(url):
                statuses = [visit.join("load", [""]).status_code for _ in range(20)]
            assert statuses == [200] * 5 + [429] * 15
            assert visit.upload(b"sounds").status_code == 429
            assert other.join("load", [""]).status_code == 200

    def test_pages_of_one_visitor_are_bounded(self, visit: Visit, other: Visit) -> None:
        statuses = [visit.open_page(f"page{number}") for number in range(20)]
        assert statuses == [200] * 15 + [429] * 5
        assert other.open_page("page") == 200

    def test_page_that_is_not_open_gets_no_results(self, visit: Visit) -> None:
        response = visit.http.get("gradio_api/queue/data?session_hash=neveropened")
        assert (response.status_code, response.json()["problem"]) == (403, "page_unknown")
