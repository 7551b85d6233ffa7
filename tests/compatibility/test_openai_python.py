"""OpenAI's client for Python, which in its strict mode takes nothing but what its types say."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from serve_app.core.errors import CorruptAudio
from tests.compatibility.conftest import TEXT
from tests.fakes.service import FAILED_RANGE, FakeService, sentence

MODEL = "whisper-1"
FILE = ("a.wav", b"RIFF")


@pytest.fixture
def client(api_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{api_url}/v1",
        api_key="unused",
        max_retries=0,
        http_client=openai.DefaultHttpxClient(trust_env=False),
        _strict_response_validation=True,
    ) as client:
        yield client


def test_json(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(model=MODEL, file=FILE)
    assert isinstance(answer, Transcription)
    assert answer.text == TEXT
    assert answer.languages is not None
    assert [language.code for language in answer.languages] == ["zh"]
    assert answer.usage is not None
    assert answer.usage.type == "duration"
    assert answer.usage.seconds == 2


def test_verbose_json(client: openai.OpenAI) -> None:
    answer = client.audio.transcriptions.create(
        model=MODEL,
        file=FILE,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert isinstance(answer, TranscriptionVerbose)
    assert answer.words is not None
    assert answer.segments is not None
    assert [word.word for word in answer.words] == list("你好再见")
    assert answer.segments[1].start == 1.0
    assert answer.usage is not None


def test_text_and_subtitles(client: openai.OpenAI) -> None:
    create = client.audio.transcriptions.create
    assert create(model=MODEL, file=FILE, response_format="text") == f"{TEXT}\n"
    assert create(model=MODEL, file=FILE, response_format="srt").startswith("1\n00:00:00,000")
    assert create(model=MODEL, file=FILE, response_format="vtt").startswith("WEBVTT\n")


def test_stream(client: openai.OpenAI) -> None:
    stream = client.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
    *deltas, done = list(stream)
    assert "".join(d.delta for d in deltas if isinstance(d, TranscriptionTextDeltaEvent)) == TEXT
    assert isinstance(done, TranscriptionTextDoneEvent)
    assert done.text == TEXT
    assert done.languages is not None
    assert [language.code for language in done.languages] == ["zh"]
    assert done.usage is not None
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens == 24


def test_partial_answers_are_taken(client: openai.OpenAI, service: FakeService) -> None:
    service.events = [sentence("你好", 0), FAILED_RANGE]
    answer = client.audio.transcriptions.create(model=MODEL, file=FILE)
    assert answer.model_extra is not None
    assert answer.model_extra["partial"] is True
    *_, done = client.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
    assert done.model_extra is not None
    assert done.model_extra["partial"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_bad_audio_is_a_bad_request(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model=MODEL, file=("a", b"not audio"), stream=stream)
    assert refused.value.code == "unknown_audio_format"
    assert refused.value.param == "file"


def test_error_in_a_stream_is_raised_with_its_code(
    client: openai.OpenAI, service: FakeService
) -> None:
    service.error = CorruptAudio("bad frame")
    stream = client.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert raised.value.code == "corrupt_audio"
    assert "bad frame" in raised.value.message


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["paraformer-demo", MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


async def test_asynchronous_client_streams(api_url: str) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{api_url}/v1",
        api_key="unused",
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        _strict_response_validation=True,
    ) as client:
        stream = await client.audio.transcriptions.create(model=MODEL, file=FILE, stream=True)
        kinds = [event.type async for event in stream]
    assert kinds == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
