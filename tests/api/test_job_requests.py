"""The document of a job, what a runner makes of it, and how its result may be asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from serve_app.api.job_requests import (
    JobRequest,
    job_error,
    lasting_warnings,
    parse_result_fields,
    prepare_job,
    read_job_request,
    write_job_request,
)
from serve_app.api.parameters import RequestWarning
from serve_app.audio import AudioLimits
from serve_app.core.errors import InvalidParameter, ModelNotFound, ParaserveError
from serve_app.core.records import RequestContext
from serve_app.jobs.records import JobError
from tests.fakes.service import FakeService

CONTEXT = RequestContext("r")
FULL = JobRequest(
    {"model": ("whisper-1",), "hotwords": ("阿里", "通义"), "metadata\ud800": ("\x00",)},
    ("upl_1/part-0-5", "upl_1/part-5-3"),
    "paraformer-demo",
    "zh",
    (RequestWarning("prompt", "has no effect"),),
)


async def parsed(
    service: FakeService | None = None, /, **fields: str
) -> tuple[str, bool, list[str]]:
    """Returns the format, whether labels are made, and the warnings."""
    sent = {"model": ["whisper-1"], **{name: [value] for name, value in fields.items()}}
    prepared = await prepare_job(sent, service or FakeService(), AudioLimits(), CONTEXT)
    warned = [warning.param for warning in prepared.parameters.warnings]
    return prepared.parameters.response_format, prepared.speakers is not None, warned


def request_of(**fields: str) -> JobRequest:
    sent = {name: (value,) for name, value in fields.items()}
    return JobRequest({"model": ("gone",), **sent}, ("job_1/audio",), "gone", "zh")


def test_document_is_read_as_it_was_written() -> None:
    assert read_job_request(write_job_request(FULL)) == FULL
    assert read_job_request(write_job_request(request_of())) == request_of()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"fields": []},
        {"fields": {"model": "x"}},
        {"fields": {"model": [1]}},
        {"audio": "a"},
        {"audio": None},
        {"warnings": [1]},
        {"warnings": [["a"]]},
    ],
)
def test_another_document_is_refused(change: Mapping[str, object]) -> None:
    content = json.loads(write_job_request(FULL))
    with pytest.raises(ValueError, match="request"):
        read_job_request(json.dumps(content | change).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"version": 1}'])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_job_request(content)


async def test_labels_are_made_whatever_the_format() -> None:
    assert await parsed(speaker_labels="true") == ("json", True, [])
    assert await parsed(response_format="text", num_speakers="2") == ("text", True, [])
    assert await parsed(response_format="diarized_json") == ("diarized_json", True, [])
    assert await parsed(response_format="srt") == ("srt", False, [])
    assert await parsed() == ("json", False, [])


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"language": "tlh"},
        {"response_format": "docx"},
        {"response_format": "json", "include": "utterances"},
        {"temperature": "9"},
        {"respnse_format": "json"},
        {"num_speakers": "0"},
        {"replacements": "x"},
    ],
)
async def test_wrong_fields_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises((InvalidParameter, ModelNotFound)):
        await parsed(**fields)


async def test_hotwords_are_checked_with_the_service() -> None:
    service = FakeService()
    service.unwritable = frozenset({"龘"})
    sent = {"model": ["whisper-1"], "hotwords": ["龘 阿里"]}
    prepared = await prepare_job(sent, service, AudioLimits(), CONTEXT)
    assert [word.text for word in prepared.parameters.recognition_options.hotwords] == ["阿里"]
    assert [one.param for one in lasting_warnings(prepared.parameters)] == ["hotwords"]
    service.hotword_problem = "the model has no bias encoder"
    with pytest.raises(InvalidParameter, match="hotwords cannot be used"):
        await prepare_job(sent, service, AudioLimits(), CONTEXT)


async def test_warnings_about_the_format_do_not_last() -> None:
    sent = {"model": ["whisper-1"], "response_format": ["srt"], "include": ["logprobs"]}
    prepared = await prepare_job(sent, FakeService(), AudioLimits(), CONTEXT)
    assert [one.param for one in prepared.parameters.warnings] == ["include"]
    assert lasting_warnings(prepared.parameters) == ()


def test_result_is_written_as_the_job_said_or_as_the_request_says() -> None:
    offer = FakeService().offer
    request = request_of(response_format="srt", subtitle_max_chars="20", speaker_labels="true")
    as_said = parse_result_fields(request, {}, offer)
    assert (as_said.response_format, as_said.subtitles.max_chars) == ("srt", 20)
    assert (as_said.model, as_said.language) == ("gone", "zh")
    other = parse_result_fields(
        request, {"response_format": ["vtt"], "subtitle_max_chars": ["30"]}, offer
    )
    assert (other.response_format, other.subtitles.max_chars) == ("vtt", 30)
    diarized = parse_result_fields(request, {"response_format": ["diarized_json"]}, offer)
    assert diarized.response_format == "diarized_json"


def test_result_is_written_without_the_stage_or_the_model() -> None:
    offer = replace(FakeService(("asr",)).offer, languages=("en",))
    request = request_of(speaker_labels="true", language="zh", stages="vad,asr,speakers")
    found = parse_result_fields(request, {"response_format": ["diarized_json"]}, offer)
    assert found.response_format == "diarized_json"


def test_include_of_the_job_does_not_hinder_another_format() -> None:
    request = request_of(response_format="verbose_json", include="utterances")
    offer = FakeService().offer
    assert parse_result_fields(request, {}, offer).include_utterances
    assert parse_result_fields(request, {"response_format": ["text"]}, offer)


@pytest.mark.parametrize(
    "sent",
    [
        {"language": ["en"]},
        {"itn": ["true"]},
        {"model": ["whisper-1"]},
        {"nonsense": ["1"]},
        {"response_format": ["docx"]},
        {"response_format": ["json", "text"]},
        {"response_format": ["diarized_json"]},
        {"subtitle_max_chars": ["-1"]},
        {"include": ["utterances"]},
    ],
)
def test_other_fields_of_a_result_are_refused(sent: Mapping[str, Sequence[str]]) -> None:
    with pytest.raises(InvalidParameter):
        parse_result_fields(request_of(), sent, FakeService().offer)


def test_error_of_a_job_is_as_a_response_says_it() -> None:
    assert job_error(InvalidParameter("language", "is unknown")) == JobError(
        "invalid_parameter", "language is unknown", "language"
    )
    assert job_error(ParaserveError("x")).code == "internal_error"
