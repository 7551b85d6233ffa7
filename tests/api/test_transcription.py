"""The transcription route: OpenAI's shapes in and out."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.core import errors
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

URL = "/v1/audio/transcriptions"


async def post(
    client: httpx.AsyncClient,
    content: bytes = b"RIFF",
    fields: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    **more: str,
) -> httpx.Response:
    data = {"model": "whisper-1", **(fields or {}), **more}
    return await client.post(URL, data=data, files={"file": ("a.wav", content)}, headers=headers)


def error_of(response: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


async def test_json_is_text_and_usage(client: httpx.AsyncClient, service: FakeService) -> None:
    response = await post(client, b"the file")
    assert response.status_code == 200
    assert response.json() == {
        "text": "你好。再见。",
        "languages": [{"code": "zh"}],
        "usage": {"type": "duration", "seconds": 2},
    }
    assert service.uploads == [b"the file"]


async def test_text_is_plain(client: httpx.AsyncClient) -> None:
    response = await post(client, response_format="text")
    assert response.text == "你好。再见。\n"
    assert response.headers["content-type"].startswith("text/plain")


async def test_srt_and_vtt(client: httpx.AsyncClient) -> None:
    srt = await post(client, response_format="srt")
    assert srt.text.startswith("1\n00:00:00,000 --> 00:00:01,400\n你好。再见。\n\n")
    vtt = await post(client, response_format="vtt")
    assert vtt.text.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.400\n你好。再见。")


async def test_verbose_json_has_segments_unless_words_are_asked_for(
    client: httpx.AsyncClient,
) -> None:
    body = (await post(client, response_format="verbose_json")).json()
    assert body["duration"] == 2.0
    assert body["language"] == "zh"
    assert [(s["start"], s["end"], s["text"]) for s in body["segments"]] == [
        (0.0, 0.4, "你好。"),
        (1.0, 1.4, "再见。"),
    ]
    assert "words" not in body
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
    body = (await post(client, fields=fields)).json()
    assert [w["word"] for w in body["words"]] == list("你好再见")
    assert "segments" not in body


async def test_utterances_are_included_on_demand(client: httpx.AsyncClient) -> None:
    fields = {"response_format": "verbose_json", "include[]": "utterances"}
    body = (await post(client, fields=fields)).json()
    assert body["utterances"] == [
        {"start": 0.0, "end": 0.9, "status": "done"},
        {"start": 0.95, "end": 1.4, "status": "done"},
    ]


async def test_stream_sends_deltas_that_add_up_to_the_text(client: httpx.AsyncClient) -> None:
    response = await post(client, stream="true")
    assert response.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in response.text.split("\n\n") if line]
    assert [e["type"] for e in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert "".join(e["delta"] for e in events[:-1]) == events[-1]["text"] == "你好。再见。"


async def test_stream_lists_words_with_times_where_they_are_asked_for(
    client: httpx.AsyncClient,
) -> None:
    fields = {"timestamp_granularities[]": ["word"]}
    response = await post(client, fields=fields, stream="true")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line[:6] == "data: "]
    words = [word for event in events[:-1] for word in event["words"]]
    assert [word["word"] for word in words] == list("你好再见")
    assert words[0]["start"] == events[0]["start"]
    assert all(0 < word["confidence"] <= 1 for word in words)
    plain = await post(client, stream="true")
    assert '"words"' not in plain.text


async def test_numbers_are_written_in_digits_if_asked_for(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [sentence("共二十五人", 0)]
    assert (await post(client)).json()["text"] == "共二十五人。"
    assert (await post(client, itn="true")).json()["text"] == "共25人。"
    streamed = await post(client, itn="true", stream="true")
    assert json.loads(streamed.text.split("\n\n")[-2][6:])["text"] == "共25人。"


async def test_phrases_are_replaced_as_requested(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [sentence("共二十五人", 0)]
    response = await post(client, itn="true", replacements="人=>位客人")
    assert response.json()["text"] == "共25位客人。"
    refused = await post(client, replacements="人")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "replacements"


async def test_latin_sentences_are_separated_in_text_and_stream(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [sentence("a", 0, "."), sentence("b", 1000, ".")]
    assert (await post(client)).json()["text"] == "a. b."
    streamed = await post(client, stream="true")
    assert json.loads(streamed.text.split("\n\n")[-2][6:])["text"] == "a. b."


async def test_nothing_said_is_an_empty_transcript(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = []
    assert (await post(client)).json()["text"] == ""
    assert (await post(client, response_format="srt")).text == ""
    streamed = await post(client, stream="true")
    assert json.loads(streamed.text[6:])["text"] == ""


async def test_partial_transcript_reports_the_missing_range(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [sentence("你好", 0), FAILED_RANGE]
    response = await post(client)
    assert response.headers["x-paraserve-partial"] == "0.5-0.9"
    assert response.json()["partial"] is True
    assert response.json()["failed_ranges"][0]["start"] == 0.5
    streamed = await post(client, stream="true")
    assert json.loads(streamed.text.split("\n\n")[-2][6:])["partial"] is True


async def test_recording_that_failed_as_a_whole_is_an_error(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [FAILED_RANGE]
    response = await post(client)
    assert response.status_code == 500
    assert error_of(response)["code"] == "recognition_failed"


async def test_stages_are_passed_on(client: httpx.AsyncClient, service: FakeService) -> None:
    await post(client, stages="asr,vad")
    await post(client)
    assert [job.stages for job in service.jobs] == [
        frozenset({"vad", "asr"}),
        frozenset({"vad", "asr", "punctuation"}),
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "xml"}, "response_format"),
        ({"language": "fr"}, "language"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": "1.5"}, "temperature"),
        ({"stream": "maybe"}, "stream"),
        (
            {"timestamp_granularities[]": "letter", "response_format": "verbose_json"},
            "timestamp_granularities",
        ),
        ({"stages": "vad"}, "stages"),
        ({"stages": "asr,translation"}, "stages"),
        ({"langauge": "zh"}, "langauge"),
        ({"language": ["zh", "zh"]}, "language"),
        ({"include[]": "words", "response_format": "verbose_json"}, "include"),
        ({"include[]": "utterances"}, "include"),
        ({"model": ""}, "model"),
    ],
)
async def test_wrong_parameter_is_named(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any], param: str
) -> None:
    response = await post(client, fields=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert service.jobs == []


async def test_unknown_model_is_not_found(client: httpx.AsyncClient) -> None:
    response = await post(client, model="gpt-9")
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


async def test_stage_that_is_not_deployed_is_refused(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.stages = ("asr",)
    response = await post(client, stages="asr,punctuation")
    assert response.status_code == 400
    assert error_of(response)["code"] == "stage_not_deployed"


async def test_missing_file_is_named(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, files={"model": (None, "whisper-1")})
    assert response.status_code == 400
    assert error_of(response)["param"] == "file"


async def test_empty_file_is_refused(client: httpx.AsyncClient) -> None:
    response = await post(client, b"")
    assert response.status_code == 400
    assert error_of(response)["code"] == "empty_file"


async def test_upload_over_the_limit_is_refused_also_when_chunked(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    response = await post(client, bytes(MAX_UPLOAD_BYTES + 1))
    assert response.status_code == 413

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(20):
            yield bytes(10_000)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = await client.post(URL, content=body(), headers=headers)
    assert response.status_code == 413
    assert error_of(response)["code"] == "upload_too_large"
    assert service.jobs == []


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("text/plain", b"{}"),
        ("application/json", b"[]"),
        ("application/json", b"{"),
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=b", b"no parts here"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncut off',
        ),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        ),
    ],
)
async def test_malformed_body_is_one_clear_error(
    client: httpx.AsyncClient, content_type: str, content: bytes
) -> None:
    response = await client.post(URL, content=content, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert error_of(response)["code"] == "malformed_body"


async def test_error_of_the_audio_keeps_its_status_also_when_streaming(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = []
    service.error = errors.UnknownAudioFormat("text")
    for stream in ("false", "true"):
        response = await post(client, stream=stream)
        assert response.status_code == 400
        assert error_of(response)["param"] == "file"
        assert error_of(response)["code"] == "unknown_audio_format"


async def test_error_after_the_stream_has_begun_is_an_event(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.error = errors.CorruptAudio("bad frame")
    response = await post(client, stream="true")
    kind, data = response.text.split("\n\n")[-2].split("\n")
    assert kind == "event: error"
    last = json.loads(data.removeprefix("data: "))
    assert last["type"] == "error"
    assert last["error"] == {
        "message": "the audio is damaged: bad frame",
        "type": "invalid_request_error",
        "param": "file",
        "code": "corrupt_audio",
    }


async def test_unexpected_error_tells_nothing_of_the_inside(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.error = RuntimeError("secret path")
    response = await post(client)
    assert response.status_code == 500
    assert "secret" not in response.text


async def test_deadline_is_a_504_and_the_work_is_dropped(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.hang = True
    response = await post(client, headers={"X-Paraserve-Timeout-S": "0.2"})
    assert response.status_code == 504
    assert error_of(response)["code"] == "deadline_exceeded"
    assert service.canceled


async def test_nothing_is_left_on_disk(
    client: httpx.AsyncClient, service: FakeService, tmp_path: Path
) -> None:
    await post(client)
    await post(client, stream="true")
    service.error = RuntimeError()
    await post(client)
    await post(client, bytes(MAX_UPLOAD_BYTES + 1))
    assert os.listdir(tmp_path) == []


def num_open_files(folder: Path) -> int:
    """Counts this process's open files in a folder, unnamed ones included."""
    links = Path("/proc/self/fd").iterdir()
    return sum(str(link.readlink()).startswith(f"{folder}/") for link in links if link.is_symlink())


@pytest.mark.parametrize("stream", ["false", "true"])
@pytest.mark.parametrize("end", ["text", "audio error", "failure", "deadline"])
async def test_recording_is_freed_with_its_request(
    client: httpx.AsyncClient, service: FakeService, tmp_path: Path, stream: str, end: str
) -> None:
    service.hang = end == "deadline"
    service.error = {
        "audio error": errors.CorruptAudio("x"),
        "failure": RuntimeError(),
    }.get(end)
    if end != "text":
        service.events = []
    service.keep_uploads = False
    gc.collect()
    gc.disable()
    try:
        response = await post(client, stream=stream, headers={"X-Paraserve-Timeout-S": "0.3"})
        assert response.status_code in {200, 400, 500, 504}
        service.error = None
        del response
        # The transport's own tasks let go of what they hold.
        for _ in range(100):
            if num_open_files(tmp_path):
                await asyncio.sleep(0)
        assert num_open_files(tmp_path) == 0
    finally:
        gc.enable()


async def test_each_request_is_one_log_line_without_text(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tests.api"):
        await client.post(
            URL,
            data={"model": "whisper-1"},
            files={"file": ("a.wav", b"RIFF")},
            headers={"X-Request-ID": "my-id"},
        )
    (record,) = caplog.records
    assert record.__dict__["paraserve_request_id"] == "my-id"
    assert record.__dict__["status"] == 200
    assert record.__dict__["audio_s"] == 2.0
    assert "你好" not in str(record.__dict__)


async def test_work_is_dropped_when_the_caller_leaves(tmp_path: Path) -> None:
    service = FakeService()
    service.hang = True
    limits = ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=60, spool_dir=tmp_path)
    app = build_api(service, limits, logging.getLogger("tests.api"))
    request = httpx.Request(
        "POST", f"http://test{URL}", data={"model": "whisper-1"}, files={"file": b"RIFF"}
    )
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": request.read(), "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(dict(message))

    scope = {
        "type": "http",
        "method": "POST",
        "path": URL,
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    await app(scope, receive, send)
    assert service.canceled
    assert sent[0]["status"] == 499
