"""Bodies that are made to break their parsers: one clear 400 each, and bounded work."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.api.spool import SpoolFile
from tests.fakes.observer import EndedRequests
from tests.fakes.service import FakeService

URL = "/v1/audio/transcriptions"


class Fetcher:
    """Fetches nothing."""

    max_bytes = 1000

    async def fetch(self, url: str, spool: SpoolFile) -> None:
        spool.write(b"RIFF")


@pytest.fixture
async def client(ended: EndedRequests, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    limits = ApiLimits(20_000_000, request_timeout_s=30, spool_dir=tmp_path)
    app = build_api(
        FakeService(), limits, logging.getLogger("tests.api"), fetcher=Fetcher(), observer=ended
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        yield http


def check(answer: httpx.Response, ended: EndedRequests, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    assert len(answer.content) < 5000
    # Logged and counted like any other.
    assert [log.status for log in ended.logs] == [status]
    error: dict[str, Any] = body["error"]
    return error


GOOD = b'"model": "whisper-1", "audio_url": "https://a/b"'


@pytest.mark.parametrize(
    "content",
    [
        b'{"\\ud800": {}}',
        b'{"\\ud800": 1}',
        b'{"model": "\\udfff", "audio_url": "https://a/b"}',
        b'{%s, "prompt": "\\ud83d"}' % GOOD,
        b'{%s, "temperature": NaN}' % GOOD,
        b'{%s, "temperature": Infinity}' % GOOD,
        b'{%s, "temperature": -Infinity}' % GOOD,
        b'{%s, "temperature": 1e999}' % GOOD,
        b'{%s, "temperature": %s}' % (GOOD, b"9" * 5000),
        b'{%s, "temperature": %s}' % (GOOD, b"9" * 4000),
        b'{%s, "model": "other"}' % GOOD,
        b'{%s, "x": {"a": 1, "a": 2}}' % GOOD,
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[" * 10_000_000,
        b'{%s, "language": [%s]}' % (GOOD, b",".join([b'"zh"'] * 5000)),
        b'{"%s": 1}' % (b"a" * 60_000),
        b'{"model": "%s", "audio_url": {}}' % (b"a" * 60_000),
        b'{"model": "whisper-1\xff"}',
        b"\xff\xfe{\x00}\x00",
        '{"model": "whisper-1"}'.encode("utf-16"),
        '{"model": "whisper-1"}'.encode("utf-32"),
        b"",
        b"\x00",
        b"null",
        b'"model"',
        b"{} {}",
        b"{'model': 1}",
        b"{\x0c}",
    ],
    ids=lambda content: repr(content[:24]),
)
async def test_json_is_a_400_in_one_shape(
    client: httpx.AsyncClient, ended: EndedRequests, content: bytes
) -> None:
    answer = await client.post(URL, content=content, headers={"Content-Type": "application/json"})
    check(answer, ended)


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "no-such", "utf-7", ""])
async def test_json_in_another_charset_is_a_400(
    client: httpx.AsyncClient, ended: EndedRequests, charset: str
) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    error = check(await client.post(URL, content=b"{%s}" % GOOD, headers=headers), ended)
    assert "UTF-8" in error["message"]


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8"])
@pytest.mark.parametrize("content", [b"{%s}" % GOOD, b"\xef\xbb\xbf{%s}" % GOOD])
async def test_json_in_utf_8_is_taken(client: httpx.AsyncClient, kind: str, content: bytes) -> None:
    answer = await client.post(URL, content=content, headers={"Content-Type": kind})
    assert answer.status_code == 200


def part(name: str, value: bytes = b"x", headers: bytes = b"") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'.encode()
    return b"--b\r\n" + disposition + b"\r\n" + headers + b"\r\n" + value + b"\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"".join(part(f"f{n}") for n in range(5000)) + b"--b--\r\n",
        b"".join(part("f") for _ in range(65)) + b"--b--\r\n",
        part("model", headers=b"X: y\r\n" * 100_000) + b"--b--\r\n",
        part("model", headers=b"X: " + b"y" * 100_000 + b"\r\n") + b"--b--\r\n",
        part("model", headers=b"X" * 100_000 + b": y\r\n") + b"--b--\r\n",
        part("file", headers=b"".join(b"X%d: y\r\n" % n for n in range(5000))) + b"--b--\r\n",
        part("prompt", b"x" * 70_000) + b"--b--\r\n",
        part("p" * 100_000) + b"--b--\r\n",
        part("") + b"--b--\r\n",
        part("model", b"\xff\xfe") + b"--b--\r\n",
        part("file") + part("file") + b"--b--\r\n",
        b"\r\n\r\n--b--",
        b"--b",
        b"--b\r\n\r\n\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data; name\r\n\r\nx\r\n--b--\r\n",
        b"\r\n" * 40_000 + b"--x",
    ],
    ids=lambda content: repr(content[40:64]),
)
async def test_multipart_abuse_is_a_400_in_one_shape(
    client: httpx.AsyncClient, ended: EndedRequests, content: bytes
) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    check(await client.post(URL, content=content, headers=headers), ended)


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'b' * 5000}",
        "multipart/form-data; boundary*=utf-8''b",
        "multipart/mixed; boundary=b",
        "application/x-www-form-urlencoded",
        ";;;;",
        "",
    ],
)
async def test_body_of_no_known_kind_is_a_400(
    client: httpx.AsyncClient, ended: EndedRequests, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    check(await client.post(URL, content=part("model") + b"--b--", headers=headers), ended)


@pytest.mark.parametrize("at", ["before", "after"])
async def test_endless_bytes_around_the_parts_are_refused(
    client: httpx.AsyncClient, ended: EndedRequests, at: str
) -> None:
    num_sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_sent
        if at == "after":
            yield part("file", b"RIFF") + part("model", b"whisper-1") + b"--b--\r\n"
        for _ in range(1000):
            num_sent += 1
            yield b"\r\n" * 32_768

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = await client.post(URL, content=body(), headers=headers)
    assert answer.status_code in {400, 413}
    check(answer, ended, answer.status_code)
    assert num_sent < 500
