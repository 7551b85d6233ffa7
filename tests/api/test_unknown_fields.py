"""What becomes of what a request says and this API does not know."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from serve_app.api.headers import IGNORED_FIELDS_HEADER, WARNINGS_HEADER
from tests.api.test_transcription import URL, error_of, post
from tests.fakes.service import FakeService

# Sent by clients of vLLM, speaches, whisper.cpp, LocalAI and FunASR.
OTHERS = (
    "top_p", "top_k", "min_p", "seed", "user", "to_language", "repetition_penalty",
    "frequency_penalty", "max_completion_tokens", "vad_filter", "best_of", "beam_size",
    "without_timestamps", "temperature_inc", "stream_include_usage", "vllm_xargs", "translate",
    "diarize", "threads", "mode", "spk", "encoding_format", "language_code", "model_id",
    "metadata", "api_version", "files",
)  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
async def test_fields_of_other_servers_are_ignored_and_named(
    client: httpx.AsyncClient, service: FakeService, name: str
) -> None:
    for stream in ("false", "true"):
        response = await post(client, fields={name: "1"}, stream=stream)
        assert response.status_code == 200
        assert response.headers[IGNORED_FIELDS_HEADER] == name
    assert len(service.jobs) == 2


async def test_ignored_fields_are_in_the_log_and_bounded(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {f"x-{number}\r\né": "1" for number in range(100)} | {"y" * 500: "1"}
    with caplog.at_level(logging.INFO, "tests.api"):
        response = await post(client, fields=fields)
    named = response.headers[IGNORED_FIELDS_HEADER].split(",")
    assert len(named) == 17
    assert named[-1] == "..."
    assert all(len(name) <= 64 for name in named)
    (record,) = [one for one in caplog.records if one.message == "transcription request"]
    assert record.__dict__["ignored_fields"] == named


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("langauge", "language"),
        ("respone_format", "response_format"),
        ("responseFormat", "response_format"),
        ("hotwrods", "hotwords"),
        ("temprature", "temperature"),
        ("stage", "stages"),
        ("timestamp_granularity[]", "timestamp_granularities"),
        ("Language", "language"),
        ("keyword", "keywords"),
    ],
)
async def test_misspelled_field_is_refused_with_the_one_that_was_meant(
    client: httpx.AsyncClient, service: FakeService, name: str, meant: str
) -> None:
    response = await post(client, fields={name: "x"})
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == name
    assert f"did you mean {meant}?" in error["message"]
    assert service.jobs == []


async def test_field_that_is_sent_as_well_was_not_misspelled(client: httpx.AsyncClient) -> None:
    response = await post(client, fields={"mode": "offline", "streams": "1"}, stream="true")
    assert response.status_code == 200
    assert response.headers[IGNORED_FIELDS_HEADER] == "mode,streams"


async def test_unknown_fields_are_refused_where_that_is_set(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.changed = {"unknown_fields": "refuse"}
    for name, value in (("seed", "1"), ("language", "language"), ("chunking_strategy", '{"a":1}')):
        response = await post(client, fields={name: value})
        assert response.status_code == 400
        assert error_of(response)["param"].startswith(name)


async def test_fields_may_come_in_the_address_and_the_body_comes_first(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.languages = ("zh", "en")
    response = await client.post(
        f"{URL}?language=en&itn=1&api-version=2025&model=x",
        data={"model": "whisper-1"},
        files={"file": ("a.wav", b"RIFF")},
    )
    assert response.status_code == 200
    assert service.jobs[0].recognition_options.language == "en"
    assert response.headers[IGNORED_FIELDS_HEADER] == "api-version"
    misspelled = await client.post(
        f"{URL}?langauge=en", data={"model": "whisper-1"}, files={"file": ("a.wav", b"RIFF")}
    )
    assert error_of(misspelled)["param"] == "langauge"


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"hotwords": "龘 通义"}, "hotwords"), ({"keywords[]": ["龘", "通义"]}, "keywords")],
)
async def test_hotwords_that_cannot_be_written_are_left_out_and_named(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any], param: str
) -> None:
    service.unwritable = frozenset({"龘"})
    response = await post(client, fields={**fields, "response_format": "verbose_json"})
    assert response.status_code == 200
    assert [word.text for word in service.jobs[0].recognition_options.hotwords] == ["通义"]
    told = json.loads(response.headers[WARNINGS_HEADER])
    assert response.json()["warnings"] == told
    assert told[0].startswith(f"{param} contains words that this model cannot write")
    assert "龘" in told[0]
    service.changed = {"unwritable_hotwords": "refuse"}
    refused = await post(client, fields=fields)
    assert refused.status_code == 400
    assert error_of(refused)["param"] == param
    assert "龘" in error_of(refused)["message"]


async def test_many_words_that_cannot_be_written_fit_into_the_header(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    words = [chr(0x4E00 + number) * 20 for number in range(100)]
    service.unwritable = frozenset(words)
    response = await post(client, fields={"hotwords": json.dumps(words)})
    assert response.status_code == 200
    assert len(response.headers[WARNINGS_HEADER]) <= 2048
    assert "92 more" in response.headers[WARNINGS_HEADER]


async def test_keywords_are_a_hint_and_hotwords_a_demand(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.hotword_problem = "model x has no bias encoder"
    response = await post(client, fields={"keywords[]": "通义"})
    assert response.status_code == 200
    assert "no bias encoder" in response.headers[WARNINGS_HEADER]
    assert service.jobs[0].recognition_options.hotwords == ()
    assert (await post(client, hotwords="通义")).status_code == 400
    service.changed = {"unwritable_hotwords": "refuse"}
    assert (await post(client, fields={"keywords[]": "通义"})).status_code == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"languages": ",".join(f"language-{number}x" for number in range(5000))},
        {"keywords[]": ["通" * 20 + str(number) for number in range(250)]},
        {"hotwords": ["word " * 2000] * 30},
        {"replacements": ["a=>b\n" * 5000] * 30},
    ],
)
async def test_more_than_can_be_looked_at_is_refused(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    response = await post(client, fields=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == next(iter(fields)).removesuffix("[]")


async def test_too_many_fields_in_the_address_are_refused(client: httpx.AsyncClient) -> None:
    query = "&".join(f"x{number}=1" for number in range(600))
    response = await client.post(
        f"{URL}?{query}", data={"model": "whisper-1"}, files={"file": ("a.wav", b"RIFF")}
    )
    assert response.status_code == 400
    assert error_of(response)["code"] == "malformed_body"
