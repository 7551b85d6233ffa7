"""OpenAI's own client against the API, strict about the shapes that come back."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextSegmentEvent,
    TranscriptionVerbose,
)

from serve_app.api.limits import ApiLimits
from serve_app.api.routes import build_api
from serve_app.core.records import Hotword, RecordingEnd, SpeechDetection
from serve_app.core.speakers import Diarization, SpeakerTurn
from tests.api.conftest import MAX_UPLOAD_BYTES
from tests.api.test_speaker_fields import data_url
from tests.fakes.service import SPANS, FakeService


@pytest.fixture(params=[False, True], ids=["loose", "strict"])
async def sdk(
    request: pytest.FixtureRequest, service: FakeService, tmp_path: Path
) -> AsyncIterator[openai.AsyncOpenAI]:
    limits = ApiLimits(MAX_UPLOAD_BYTES, request_timeout_s=30, spool_dir=tmp_path)
    app = build_api(service, limits, logging.getLogger("tests.api"))
    service.languages = ("zh", "en")
    http = openai.DefaultAsyncHttpx2Client(transport=httpx2.ASGITransport(app))
    async with openai.AsyncOpenAI(
        base_url="http://test/v1",
        api_key="none",
        http_client=http,
        max_retries=0,
        _strict_response_validation=request.param,
    ) as client:
        yield client


FIELDS: dict[str, Any] = {
    "file": ("a.wav", b"RIFF"),
    "model": "whisper-1",
    "chunking_strategy": {
        "type": "server_vad",
        "silence_duration_ms": 400,
        "prefix_padding_ms": 100,
        "threshold": 0.6,
    },
    "include": ["logprobs"],
    "keywords": ["New York, NY", "通义"],
    "languages": ["fr", "en"],
    "prompt": "prompt",
    "temperature": 0,
    "timestamp_granularities": ["word", "segment"],
    "extra_body": {"seed": 1, "stages": ["vad", "asr"], "hotwords": {"达摩院": 20}},
}


def check_job(service: FakeService) -> None:
    (job,) = service.jobs
    assert job.recognition_options.language == "en"
    assert job.speech_detection == SpeechDetection(400, 100, 0.6)
    assert job.stages == frozenset({"vad", "asr"})
    assert Hotword("达摩院", 20.0) in job.recognition_options.hotwords
    assert Hotword("通义") in job.recognition_options.hotwords


async def test_every_field_of_the_client_has_an_effect(
    sdk: openai.AsyncOpenAI, service: FakeService
) -> None:
    answer = await sdk.audio.transcriptions.create(**FIELDS, response_format="json")
    assert isinstance(answer, Transcription)
    assert answer.logprobs is not None
    assert "".join(one.token or "" for one in answer.logprobs) == answer.text
    check_job(service)


async def test_verbose_json_is_what_the_client_expects(
    sdk: openai.AsyncOpenAI, service: FakeService
) -> None:
    answer = await sdk.audio.transcriptions.create(**FIELDS, response_format="verbose_json")
    assert isinstance(answer, TranscriptionVerbose)
    assert answer.words
    assert answer.segments
    check_job(service)


@pytest.mark.parametrize("response_format", ["srt", "vtt"])
async def test_stream_of_a_format_without_streams_is_the_whole_text(
    sdk: openai.AsyncOpenAI, service: FakeService, response_format: str
) -> None:
    raw = await sdk.audio.transcriptions.with_raw_response.create(
        **FIELDS | {"stream": True, "response_format": response_format}
    )
    assert "你好" in (await raw.http_response.aread()).decode()
    check_job(service)


async def test_unknown_model_raises_not_found_in_the_client(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await sdk.audio.transcriptions.create(file=("a.wav", b"RIFF"), model="gpt-9")
    assert refused.value.code == "model_not_found"


async def test_diarized_json_and_its_stream_are_what_the_client_expects(
    sdk: openai.AsyncOpenAI, service: FakeService
) -> None:
    service.changed = {"model_aliases": ("gpt-4o-transcribe-diarize",)}
    turns = (SpeakerTurn(0, 900, 0), SpeakerTurn(950, 1400, 1))
    service.end = RecordingEnd(2000, SPANS, diarization=Diarization(turns, ("agent", "B")))
    fields: dict[str, Any] = {
        "file": ("a.wav", b"RIFF"),
        "model": "gpt-4o-transcribe-diarize",
        "response_format": "diarized_json",
        "chunking_strategy": "auto",
        "known_speaker_names": ["agent"],
        "known_speaker_references": [data_url((2, 500))],
    }
    answer = await sdk.audio.transcriptions.create(**fields)
    assert isinstance(answer, TranscriptionDiarized)
    assert [segment.speaker for segment in answer.segments] == ["agent", "B"]
    assert answer.usage is not None
    stream = await sdk.audio.transcriptions.create(**fields, stream=True)
    events = [event async for event in stream]
    segments = [event for event in events if isinstance(event, TranscriptionTextSegmentEvent)]
    assert [(one.speaker, one.text) for one in segments] == [("agent", "你好。"), ("B", "再见。")]
    assert events[-1].type == "transcript.text.done"
    options = service.jobs[0].speakers
    assert options is not None
    assert [one.name for one in options.known] == ["agent"]
