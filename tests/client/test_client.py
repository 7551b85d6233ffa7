from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest

from serve_app.client import (
    AsyncParaserve,
    Paraserve,
    Served,
    ServiceRefusal,
    ServiceUnreachable,
    StreamEnd,
    StreamSegment,
    StreamSentence,
    TranscriptionRequest,
    service_url,
)

MODELS = {
    "data": [
        {"id": "paraformer-demo", "root": "paraformer-demo", "hotwords": True},
        {"id": "whisper-1", "root": "paraformer-demo"},
    ]
}
ANSWER = {
    "text": "你好。",
    "language": "zh",
    "languages": [{"code": "zh"}, {"code": "en"}],
    "duration": 2.5,
    "segments": [{"id": 0, "start": 0.1, "end": 1.2, "text": "你好。"}],
    "words": [{"word": "你", "start": 0.1, "end": 0.3, "confidence": 0.9}],
    "partial": True,
    "failed_ranges": [{"start": 1.5, "end": 2.0, "error": "damaged"}],
}
EVENTS = (
    ": waiting\n\n"
    'data: {"type": "transcript.text.delta", "delta": "你好。", "start": 0.1, "end": 1.2}\n\n'
    'data: {"type": "something.new"}\n\n'
    'data: {"type": "transcript.text.done", "text": "你好。", "duration": 3.0, '
    '"languages": [{"code": "zh"}]}\n\n'
)


class FakeService:
    """Answers requests; the first ones by what is in `first`."""

    def __init__(self, *first: httpx.Response | Exception) -> None:
        self.first = list(first)
        self.posted: list[bytes] = []
        self.keys: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("Authorization"))
        if request.url.path == "/v1/models":
            return httpx.Response(200, json=MODELS)
        if request.url.path == "/readyz":
            return httpx.Response(200, json={"stages": {"asr": {}, "vad": {}}})
        self.posted.append(request.read())
        if self.first:
            following = self.first.pop(0)
            if isinstance(following, Exception):
                raise following
            return following
        if b'name="stream"' in self.posted[-1]:
            return httpx.Response(200, text=EVENTS, headers={"Content-Type": "text/event-stream"})
        if b"verbose_json" in self.posted[-1]:
            return httpx.Response(200, json=ANSWER)
        headers = {
            "X-Paraserve-Partial": "1.5-2.0",
            "X-Paraserve-Warning": "demo model",
            "X-Paraserve-Warnings": json.dumps(["language has no effect: 通"]),
        }
        return httpx.Response(200, text="你好。\n", headers=headers)


def refusal(status: int, code: str, **headers: str) -> httpx.Response:
    error = {"error": {"code": code, "message": f"it is {code}"}}
    return httpx.Response(status, json=error, headers=headers)


def client_of(service: FakeService, api_key: str = "", max_retries: int = 4) -> Paraserve:
    return Paraserve(
        "service", api_key, max_retries=max_retries, transport=httpx.MockTransport(service)
    )


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nobody waits; what would have been waited is noted."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    monkeypatch.setattr("asyncio.sleep", sleep)
    return waited


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://a/v1/", "http://a"),
        ("HTTPS://a/speech/v1", "https://a/speech"),
        ("http://a/v1/audio/transcriptions", "http://a"),
        (" http://[::1]:8000/ ", "http://[::1]:8000"),
    ],
)
def test_address_is_taken_with_and_without_scheme_and_v1(given: str, url: str) -> None:
    assert service_url(given) == url


@pytest.mark.parametrize("given", ["", "ftp://a", "http://", "a b"])
def test_other_addresses_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="URL of a service"):
        service_url(given)


def test_transcript_is_read_with_words_and_failures(tmp_path: Path) -> None:
    recording = tmp_path / "a.wav"
    recording.write_bytes(b"RIFF")
    service = FakeService()
    with client_of(service, "psk_x") as client:
        transcript = client.transcribe(recording, TranscriptionRequest(words=True))
    assert (transcript.text, transcript.duration_s, transcript.partial) == ("你好。", 2.5, True)
    assert transcript.languages == ("zh", "en")
    assert transcript.segments[0].start_s == 0.1
    assert transcript.words[0].confidence == 0.9
    assert transcript.failed[0].error == "damaged"
    assert set(service.keys) == {"Bearer psk_x"}
    assert b'filename="a.wav"' in service.posted[0]
    assert b"paraformer-demo" in service.posted[0]


def test_fields_are_sent_in_the_forms_of_the_api() -> None:
    request = TranscriptionRequest(
        model="m",
        stages=("vad", "asr"),
        hotwords={"云梯": 2.0},
        fields={"include": ["logprobs"], "itn": True, "replacements": {"a": "b"}},
    )
    assert request.form("m", "json") == {
        "model": "m",
        "response_format": "json",
        "stages": "vad,asr",
        "hotwords": '{"云梯": 2.0}',
        "include[]": ["logprobs"],
        "itn": "true",
        "replacements": '{"a": "b"}',
    }


def test_other_formats_come_as_they_are_with_what_the_headers_say() -> None:
    with client_of(FakeService()) as client:
        answer = client.transcribe_as(b"RIFF", "text")
    assert (answer.text, answer.partial) == ("你好。\n", True)
    assert answer.warnings == ("demo model", "language has no effect: 通")


def test_stream_yields_sentences_and_the_end_and_skips_unknown_events() -> None:
    with client_of(FakeService()) as client:
        assert list(client.stream(b"RIFF")) == [
            StreamSentence(0.1, 1.2, "你好。"),
            StreamEnd("你好。", 3.0, languages=("zh",)),
        ]


def test_error_in_a_stream_is_raised() -> None:
    event = {"type": "error", "error": {"code": "deadline_exceeded", "message": "too late"}}
    answer = httpx.Response(200, text=f"data: {json.dumps(event)}\n\n")
    with (
        client_of(FakeService(answer)) as client,
        pytest.raises(ServiceRefusal, match="too late") as refused,
    ):
        list(client.stream(b"RIFF"))
    assert refused.value.code == "deadline_exceeded"


def test_busy_service_is_called_again_after_its_retry_after(pauses: list[float]) -> None:
    service = FakeService(
        refusal(429, "overloaded", **{"Retry-After": "7"}),
        httpx.ConnectError("refused"),
        httpx.Response(502, text="proxy"),
    )
    with client_of(service) as client:
        assert client.transcribe(b"RIFF", TranscriptionRequest(model="m")).text == "你好。"
    assert pauses[0] == 7
    assert len(pauses) == 3
    assert max(pauses) <= 60
    assert len(set(service.posted)) <= 4
    assert all(b"RIFF" in body for body in service.posted)


def test_wrong_request_is_not_sent_again() -> None:
    service = FakeService(refusal(400, "invalid_parameter"))
    with client_of(service) as client, pytest.raises(ServiceRefusal, match="it is") as refused:
        client.transcribe(b"RIFF", TranscriptionRequest(model="m"))
    assert (refused.value.status, len(service.posted)) == (400, 1)


def test_stream_that_cannot_be_read_twice_is_sent_once() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    service = FakeService(refusal(503, "not_ready"))
    with client_of(service) as client, pytest.raises(ServiceRefusal):
        client.transcribe(Pipe(b"RIFF"), TranscriptionRequest(model="m"))
    assert len(service.posted) == 1


def test_refused_connection_names_the_address() -> None:
    service = FakeService(httpx.ConnectError("Errno 111"))
    with (
        client_of(service, max_retries=0) as client,
        pytest.raises(ServiceUnreachable, match="no service answers at http://service"),
    ):
        client.transcribe(b"RIFF", TranscriptionRequest(model="m"))


@pytest.mark.parametrize("text", ["<html>", "[]", "{}"])
def test_something_else_is_not_taken_for_the_service(text: str) -> None:
    service = FakeService(httpx.Response(200, text=text))
    with client_of(service) as client, pytest.raises(ServiceUnreachable, match="not Paraserve"):
        client.transcribe(b"RIFF", TranscriptionRequest(model="m"))
    assert len(service.posted) == 1


def test_served_models_are_listed_without_aliases() -> None:
    with client_of(FakeService()) as client:
        assert client.served() == Served(
            ("paraformer-demo",), ("asr", "vad"), frozenset({"paraformer-demo"})
        )


async def test_asyncio_form_is_the_same(pauses: list[float]) -> None:
    service = FakeService(refusal(503, "not_ready", **{"Retry-After": "2"}))
    client = AsyncParaserve("service", "", transport=httpx.MockTransport(service))
    async with client:
        assert (await client.transcribe(b"RIFF")).text == "你好。"
        assert (await client.transcribe_as(b"RIFF", "text")).partial
        assert [event.text async for event in client.stream(b"RIFF")] == ["你好。", "你好。"]
        assert (await client.served()).models == ("paraformer-demo",)
    assert pauses == [2]


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARASERVE_URL", "somewhere:9/v1")
    monkeypatch.setenv("PARASERVE_API_KEY", "psk_y")
    service = FakeService()
    with Paraserve(transport=httpx.MockTransport(service)) as client:
        assert client.url == "http://somewhere:9"
        client.served()
    assert set(service.keys) == {"Bearer psk_y"}


def test_labels_of_speakers_are_asked_for_and_read() -> None:
    posted: list[str] = []
    labelled = {
        **ANSWER,
        "segments": [{"start": 0.1, "end": 1.2, "text": "你好。", "speaker": "Anna"}],
        "words": [{"word": "你", "start": 0.1, "end": 0.3, "speaker": "Anna"}],
    }
    segment = (
        'data: {"type": "transcript.text.segment", "id": "seg_001", "start": 0.1, "end": 1.2, '
        '"text": "你好。", "speaker": "Anna"}\n\n'
    )

    def answer(request: httpx.Request) -> httpx.Response:
        posted.append(request.read().decode())
        if "verbose_json" in posted[-1]:
            return httpx.Response(200, json=labelled)
        return httpx.Response(200, text=segment + EVENTS)

    request = TranscriptionRequest("m", num_speakers=2, known_speakers={"Anna": b"RIFF"})
    with Paraserve("http://s", transport=httpx.MockTransport(answer)) as client:
        transcript = client.transcribe(b"RIFF", request)
        events = list(client.stream(b"RIFF", request))
    assert transcript.segments[0].speaker == "Anna"
    assert transcript.words[0].speaker == "Anna"
    assert events[0] == StreamSegment(0.1, 1.2, "你好。", "Anna")
    for body in posted:
        for name in ("speaker_labels", "num_speakers", "known_speaker_names[]"):
            assert f'name="{name}"' in body
        assert "data:application/octet-stream;base64,UklGRg==" in body
    assert "diarized_json" in posted[1]
