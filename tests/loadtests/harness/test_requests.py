"""How answers are judged."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from loadtests.harness.requests import Attempt, Caller, Fate, Request

TEXT = "今天天气很好。"
DONE = {"type": "transcript.text.done", "text": TEXT, "duration": 3.0}


async def tried(
    answer: Callable[[httpx.Request], httpx.Response], *, stream: bool = False
) -> Attempt:
    transport = httpx.MockTransport(answer)
    async with Caller("http://service", "secret", transport=transport) as caller:
        return await caller.attempt(Request(b"audio", TEXT, stream, "r1"))


def sse(*events: dict[str, object]) -> bytes:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()


def error(code: str) -> dict[str, object]:
    return {"error": {"message": "", "type": "server_error", "param": None, "code": code}}


async def test_right_text_is_right() -> None:
    ended = await tried(lambda _: httpx.Response(200, json={"text": TEXT}))
    assert (ended.fate, ended.status, ended.detail) == (Fate.RIGHT, 200, "")
    assert ended.first_at_s is not None
    assert ended.began_s <= ended.first_at_s <= ended.ended_s


async def test_other_text_is_wrong() -> None:
    ended = await tried(lambda _: httpx.Response(200, json={"text": "今天"}))
    assert (ended.fate, ended.detail) == (Fate.WRONG, "2 characters instead of 7")


async def test_answer_with_the_partial_header_is_partial() -> None:
    ended = await tried(lambda _: httpx.Response(200, json={"text": TEXT, "partial": True}))
    assert ended.fate is Fate.PARTIAL


async def test_half_an_answer_is_broken() -> None:
    ended = await tried(lambda _: httpx.Response(200, content=b'{"text": "'))
    assert ended.fate is Fate.BROKEN


async def test_refusal_keeps_its_time() -> None:
    ended = await tried(
        lambda _: httpx.Response(429, json=error("overloaded"), headers={"Retry-After": "12"})
    )
    assert (ended.fate, ended.status, ended.detail) == (Fate.REFUSED, 429, "overloaded")
    assert ended.retry_after_s == 12.0


@pytest.mark.parametrize("status", [400, 413])
async def test_other_4xx_is_rejected(status: int) -> None:
    ended = await tried(lambda _: httpx.Response(status, json=error("corrupt_audio")))
    assert (ended.fate, ended.detail) == (Fate.REJECTED, "corrupt_audio")


@pytest.mark.parametrize("status", [500, 504])
async def test_5xx_of_the_service_is_failed(status: int) -> None:
    ended = await tried(lambda _: httpx.Response(status, json=error("internal_error")))
    assert (ended.fate, ended.detail) == (Fate.FAILED, "internal_error")


async def test_service_that_is_not_ready_has_taken_nothing() -> None:
    ended = await tried(lambda _: httpx.Response(503, json=error("not_ready")))
    assert ended.fate is Fate.UNAVAILABLE


@pytest.mark.parametrize("status", [500, 503])
async def test_page_of_the_proxy_counts_as_a_break(status: int) -> None:
    ended = await tried(lambda _: httpx.Response(status, text="Internal Server Error"))
    assert ended.fate is Fate.BROKEN


async def test_connection_that_ends_is_a_break() -> None:
    def end(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset", request=request)

    assert (await tried(end)).fate is Fate.BROKEN


async def test_service_that_does_not_listen_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert (await tried(refuse)).fate is Fate.UNAVAILABLE


async def test_silence_is_unfinished() -> None:
    def wait(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    assert (await tried(wait)).fate is Fate.UNFINISHED


async def test_stream_is_judged_by_its_last_event() -> None:
    body = sse(
        {"type": "transcript.text.delta", "delta": TEXT},
        DONE,
    )
    assert (await tried(lambda _: httpx.Response(200, content=body), stream=True)).fate is (
        Fate.RIGHT
    )


@pytest.mark.parametrize(
    ("body", "fate"),
    [
        (b"", Fate.BROKEN),
        (sse({"type": "transcript.text.delta", "delta": TEXT}), Fate.BROKEN),
        (sse(DONE)[:-12], Fate.BROKEN),
        (sse({"type": "error", **error("deadline_exceeded")}), Fate.FAILED),
        (sse({**DONE, "failed_ranges": [{"start": 0, "end": 1}]}), Fate.PARTIAL),
    ],
)
async def test_stream_without_a_good_end(body: bytes, fate: Fate) -> None:
    ended = await tried(lambda _: httpx.Response(200, content=body), stream=True)
    assert ended.fate is fate


async def test_request_carries_its_id_key_and_audio() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"text": TEXT})

    await tried(answer, stream=True)
    assert seen[0].headers["X-Request-ID"] == seen[0].headers["Idempotency-Key"] == "r1"
    assert seen[0].headers["Authorization"] == "Bearer secret"
    assert b'name="stream"' in seen[0].content
    assert b"audio" in seen[0].content


async def test_time_to_come_back_that_is_no_number_is_not_usable() -> None:
    headers = {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}
    ended = await tried(lambda _: httpx.Response(429, json=error("overloaded"), headers=headers))
    assert ended.retry_after_s is None
