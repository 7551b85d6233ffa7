from __future__ import annotations

import io
import json

import httpx
import pytest

from serve_app.client import ClientError, FailedSpan, StreamEnd, StreamSentence
from serve_app.ui.client import ApiClient, Order
from tests.ui.scripted_api import SAID, Refusal, ScriptedApi


def client_of(api: ScriptedApi) -> ApiClient:
    return ApiClient("http://test", 10, httpx.ASGITransport(api.app()))


async def test_transcript_comes_as_sentences_and_an_end() -> None:
    api = ScriptedApi()
    order = Order("paraformer-demo", ("asr",))
    events = [event async for event in client_of(api).transcribe(io.BytesIO(b"sounds"), order, "")]
    first = events[0]
    assert isinstance(first, StreamSentence)
    assert (first.start_s, first.end_s, first.text) == SAID[0]
    assert "".join(word.text for word in first.words) == SAID[0][2].rstrip("。")
    assert isinstance(events[-1], StreamEnd)
    assert len(events) == len(SAID) + 1
    assert api.orders == [
        {
            "model": "paraformer-demo",
            "response_format": "json",
            "stream": "true",
            "stages": "asr",
            "timestamp_granularities[]": "segment",
        }
    ]
    assert api.uploads == [b"sounds"]


async def test_refusal_contains_the_error_of_the_api() -> None:
    api = ScriptedApi(refusal=Refusal(429, "overloaded", "full", 7))
    with pytest.raises(ClientError) as refused:
        async for _ in client_of(api).transcribe(io.BytesIO(), Order("x"), ""):
            pass
    error = refused.value
    shown = (error.status, error.code, error.message, error.retry_after_s)
    assert shown == (429, "overloaded", "full", 7)


async def test_error_in_the_stream_is_a_refusal_after_the_sentences() -> None:
    events = client_of(ScriptedApi(error_after=2)).transcribe(io.BytesIO(), Order("x"), "")
    first = await anext(events)
    assert isinstance(first, StreamSentence)
    assert first.text == SAID[0][2]
    await anext(events)
    with pytest.raises(ClientError, match="a replica died"):
        await anext(events)


async def test_failed_ranges_come_with_the_end() -> None:
    done = {
        "type": "transcript.text.done",
        "text": "",
        "duration": 2.4,
        "partial": True,
        "failed_ranges": [{"start": 0.5, "end": 1.25, "error": "x"}],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f"data: {json.dumps(done)}\n\n")

    client = ApiClient("http://test", 10, httpx.MockTransport(answer))
    events = [event async for event in client.transcribe(io.BytesIO(), Order("x"), "")]
    assert events == [StreamEnd("", 2.4, (FailedSpan(0.5, 1.25, "x"),))]


async def test_offer_lists_models_stages_and_hotword_support() -> None:
    offer = await client_of(ScriptedApi(hotwords=True)).offer("")
    assert offer.models == ("paraformer-demo", "seaco-demo")
    assert offer.stages == ("vad", "asr", "punctuation")
    assert offer.hotword_models == {"seaco-demo"}
    # The second is no built-in pack, whatever its name ends in.
    assert offer.demo_models == ("paraformer-demo",)


async def test_key_is_sent() -> None:
    client = client_of(ScriptedApi(key="psk_x"))
    assert (await client.offer("psk_x")).models
    with pytest.raises(ClientError) as refused:
        await client.offer("psk_y")
    assert refused.value.status == 401


async def test_error_page_of_a_proxy_is_a_refusal() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, text="<html>"))
    with pytest.raises(ClientError) as refused:
        await ApiClient("http://test", 10, transport).offer("")
    error = refused.value
    shown = (error.status, error.code, error.message)
    assert shown == (502, "http_502", "HTTP status 502 Bad Gateway")


async def test_no_answer_is_a_refusal() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    client = ApiClient("http://test", 10, httpx.MockTransport(fail))
    with pytest.raises(ClientError) as refused:
        await client.offer("")
    assert refused.value.code == "unreachable"
    with pytest.raises(ClientError):
        async for _ in client.transcribe(io.BytesIO(), Order("x"), ""):
            pass
