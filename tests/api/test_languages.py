"""The languages that an answer tells are those that were heard."""

from __future__ import annotations

import json

import httpx
import pytest

from serve_app.core.records import RecordingEnd, UtteranceSummary
from tests.api.test_transcription import post
from tests.fakes.service import FakeService

JAPANESE, CHINESE = (
    UtteranceSummary(0, 900, "done", "ja"),
    UtteranceSummary(900, 1400, "done", "zh"),
)


async def told(client: httpx.AsyncClient, language: str = "") -> object:
    answer = await post(client, response_format="verbose_json", language=language)
    return answer.json()["language"]


async def test_requested_language_is_reported(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.languages = ("zh", "en")
    assert await told(client, language="en-US") == "en"


async def test_default_is_that_of_the_deployment_and_not_the_first_that_it_takes(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.languages, service.default_language = ("zh", "en"), "en"
    assert await told(client) == "en"


async def test_guessed_language_is_that_of_most_of_the_speech(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.default_language = None
    service.end = RecordingEnd(2000, (CHINESE, JAPANESE))
    assert await told(client) == "ja"


@pytest.mark.parametrize("spans", [(), (UtteranceSummary(0, 900, "empty", "ja"),)])
async def test_language_in_which_nothing_was_said_is_undetermined(
    client: httpx.AsyncClient, service: FakeService, spans: tuple[UtteranceSummary, ...]
) -> None:
    service.default_language = None
    service.end = RecordingEnd(2000, spans)
    assert await told(client) == "und"


async def test_utterances_tell_theirs_where_it_is_known(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.end = RecordingEnd(2000, (JAPANESE, UtteranceSummary(900, 1400, "done")))
    fields = {"response_format": "verbose_json", "include[]": "utterances"}
    first, second = (await post(client, fields=fields)).json()["utterances"]
    assert first["language"] == "ja"
    assert "language" not in second


async def listed(client: httpx.AsyncClient, **fields: str) -> list[str]:
    """Returns the codes of an answer, or of the end of a stream."""
    answer = await post(client, fields=fields)
    body = answer.text
    if "stream" in fields:
        body = body.rstrip().splitlines()[-1].removeprefix("data: ")
    return [language["code"] for language in json.loads(body)["languages"]]


FORMATS = (
    {"response_format": "json"},
    {"response_format": "verbose_json"},
    {"stream": "true"},
)


@pytest.mark.parametrize("fields", FORMATS)
async def test_languages_are_ordered_by_the_amount_of_speech(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, str]
) -> None:
    service.default_language = None
    service.end = RecordingEnd(2000, (CHINESE, JAPANESE))
    assert await listed(client, **fields) == ["ja", "zh"]


@pytest.mark.parametrize("fields", FORMATS)
async def test_requested_language_is_the_only_one(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, str]
) -> None:
    service.languages = ("zh", "en")
    service.end = RecordingEnd(2000, (JAPANESE,))
    assert await listed(client, language="English", **fields) == ["en"]


@pytest.mark.parametrize("fields", FORMATS)
async def test_without_words_there_are_no_languages(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, str]
) -> None:
    service.events = []
    service.end = RecordingEnd(2000, (UtteranceSummary(0, 900, "empty", "ja"),))
    assert await listed(client, **fields) == []
