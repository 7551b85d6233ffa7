"""The fields of OpenAI's API in the forms in which its clients and curl's users send them."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from serve_app.api.headers import IGNORED_FIELDS_HEADER, WARNINGS_HEADER
from serve_app.core.records import (
    AS_DEPLOYED,
    Hotword,
    RecordingEnd,
    SpeechDetection,
    UtteranceSummary,
)
from tests.api.test_transcription import error_of, post
from tests.fakes.service import FakeService, sentence


def warned(response: httpx.Response) -> list[str]:
    """Returns the fields that the warnings are about."""
    sentences = json.loads(response.headers.get(WARNINGS_HEADER, "[]"))
    return [sentence.split()[0] for sentence in sentences]


# What the SDK's own tests send: every field, most with a placeholder.
EVERYTHING: dict[str, Any] = {
    "model": "gpt-4o-transcribe",
    "chunking_strategy": "auto",
    "include[]": "logprobs",
    "keywords[]": "string",
    "known_speaker_names[]": "string",
    "known_speaker_references[]": "string",
    "language": "language",
    "languages[]": "string",
    "prompt": "prompt",
    "response_format": "json",
    "temperature": "0",
    "timestamp_granularities[]": "word",
}


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_all_fields_together_are_accepted_and_ineffective_ones_named(
    client: httpx.AsyncClient, service: FakeService, stream: str
) -> None:
    service.changed = {"model_aliases": ("gpt-4o-transcribe",)}
    service.hotword_problem = "model x has no bias encoder"
    response = await post(client, fields=EVERYTHING, stream=stream)
    assert response.status_code == 200
    assert (
        warned(response)
        == [
            "known_speaker_names",
            "known_speaker_references",
            "language",
            "languages",
            *(("timestamp_granularities",) if stream == "false" else ()),
            "keywords",
        ][: len(warned(response))]
    )
    assert "keywords" in warned(response)
    assert IGNORED_FIELDS_HEADER not in response.headers


@pytest.mark.parametrize(
    "name",
    ["gpt-transcribe", "gpt-transcribe-2026-05-01", "gpt-4o-mini-transcribe-2025-12-15"],
)
async def test_alias_may_have_a_date(
    client: httpx.AsyncClient, service: FakeService, name: str
) -> None:
    service.changed = {"model_aliases": ("gpt-transcribe", "gpt-4o-mini-transcribe")}
    assert (await post(client, model=name)).status_code == 200
    refused = await post(client, model=f"{name}-turbo")
    assert refused.status_code == 404
    error = error_of(refused)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "paraformer-demo" in error["message"]
    assert "gpt-transcribe" in error["message"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("paraformer", None),
        ("paraformer-zh", "paraformer-large"),
        (
            "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
            "paraformer-large",
        ),
        (
            "damo/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
            "paraformer-large",
        ),
        ("iic/speech_paraformer-large-vad-punc_asr_nat-zh-cn-16k-common-vocab8404-pytorch", None),
    ],
)
async def test_names_of_funasr_mean_the_pack_or_else_the_first(
    client: httpx.AsyncClient, service: FakeService, name: str, pack: str | None
) -> None:
    service.other_models = ("paraformer-large",)
    assert (await post(client, model=name)).status_code == 404
    service.changed = {"serves_paraformer": True}
    assert (await post(client, model=name)).status_code == 200
    assert service.jobs[-1].recognition_options.model == pack
    assert (await post(client, model="iic/SenseVoiceSmall")).status_code == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"keywords": ["阿里巴巴", "New York"]},
        {"keywords[]": ["阿里巴巴", "New York"]},
        {"keywords[0]": "阿里巴巴", "keywords[1]": "New York"},
        {"keywords": '["阿里巴巴", "New York"]'},
        {"keywords": "阿里巴巴, New York"},
        {"hotwords[]": ["阿里巴巴", "New York"]},
        {"hotwords[]": "阿里巴巴，New York"},
        {"hotword": '["阿里巴巴", "New York"]'},
    ],
)
async def test_words_to_prefer_come_in_every_form_of_a_list(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any]
) -> None:
    assert (await post(client, fields=fields)).status_code == 200
    assert service.jobs[0].recognition_options.hotwords == (
        Hotword("阿里巴巴"),
        Hotword("New York"),
    )


async def test_weights_may_be_keys_of_the_field(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    await post(client, fields={"hotwords[通义]": "20", "keywords[]": "达摩院"})
    assert service.jobs[0].recognition_options.hotwords == (
        Hotword("达摩院"),
        Hotword("通义", 20.0),
    )


async def test_a_list_of_hotwords_may_have_one_field_per_word(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    words = [f"word {number}" for number in range(100)]
    assert (await post(client, fields={"keywords[]": words})).status_code == 200
    assert len(service.jobs[0].recognition_options.hotwords) == 100


async def test_keywords_still_refine_drafts_and_say_what_to_send_instead(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.changed = {"takes_keywords": True}
    response = await post(client, keywords="交易,停滞")
    assert service.jobs[-1].recognition_options.keywords == ("交易", "停滞")
    assert "refine_keywords" in json.loads(response.headers[WARNINGS_HEADER])[0]
    response = await post(client, refine_keywords="交易 停滞", keywords="通义")
    assert service.jobs[-1].recognition_options.keywords == ("交易", "停滞")
    assert WARNINGS_HEADER not in response.headers


@pytest.mark.parametrize(
    ("fields", "language"),
    [
        ({"language": "Chinese"}, "zh"),
        ({"language": "中文"}, "zh"),
        ({"language": "zh-CN"}, "zh"),
        ({"language": "mandarin"}, "zh"),
        ({"language": "English"}, "en"),
        ({"language": "auto"}, "zh"),
        ({"languages[]": ["fr", "en", "zh"]}, "en"),
        ({"languages": '["fr", "en"]'}, "en"),
        ({"languages": "fr,en"}, "en"),
        ({"language": "zh", "languages[]": "en"}, "zh"),
        ({"language": "", "languages": ""}, None),
        ({"language": "klingonese"}, None),
    ],
)
async def test_language_comes_by_code_or_name_and_the_first_that_is_served_counts(
    client: httpx.AsyncClient,
    service: FakeService,
    fields: dict[str, Any],
    language: str | None,
) -> None:
    service.languages = ("zh", "en")
    response = await post(client, fields=fields)
    assert response.status_code == 200
    assert service.jobs[0].recognition_options.language == language
    assert warned(response) == (["language"] if "klingonese" in fields.values() else [])


async def test_language_is_guessed_where_that_can_be_done(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.changed = {"guesses_language": True}
    service.end = RecordingEnd(2000, (UtteranceSummary(0, 900, "done", "en"),))
    response = await post(client, language="auto", response_format="verbose_json")
    assert service.jobs[0].recognition_options.language == "auto"
    assert response.json()["language"] == "en"


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"language": "French"}, "language", "not supported by this model"),
        ({"language": "hh"}, "language", "not supported by this model"),
        ({"languages[]": ["fr", "de"]}, "languages", "not supported by this model"),
        ({"language": "manderin"}, "language", "did you mean mandarin"),
        ({"known_speaker_names[]": "agent"}, "known_speaker_names", "must be as many as"),
        (
            {
                "response_format": "diarized_json",
                "known_speaker_names[]": "a",
                "known_speaker_references[]": "data:audio/wav;base64,",
            },
            "known_speaker_references",
            "must be audio",
        ),
        ({"keywords": "[1]"}, "keywords", "must be"),
        ({"keywords": '["a"'}, "keywords", "is not valid JSON"),
        ({"include": '["logprobs"'}, "include", "is not valid JSON"),
        ({"include": '{"a": 1}'}, "include", "must be one of"),
        ({"keywords[]": ["word"], "hotwords": "a" * 33}, "hotwords", "longer than 32"),
    ],
)
async def test_what_cannot_be_done_is_said(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any], param: str, said: str
) -> None:
    response = await post(client, fields=fields)
    assert response.status_code == 400
    error = error_of(response)
    assert error["param"] == param
    assert error["message"].startswith(f"{param} ")
    assert said in error["message"]
    assert service.jobs == []


@pytest.mark.parametrize(
    ("fields", "detection"),
    [
        ({"chunking_strategy": "auto"}, AS_DEPLOYED),
        ({"chunking_strategy": '"auto"'}, AS_DEPLOYED),
        ({"chunking_strategy[type]": "auto", "chunking_strategy[threshold]": "1"}, AS_DEPLOYED),
        ({"chunking_strategy": "server_vad"}, AS_DEPLOYED),
        ({"chunking_strategy[type]": "server_vad"}, AS_DEPLOYED),
        (
            {
                "chunking_strategy[type]": "server_vad",
                "chunking_strategy[silence_duration_ms]": "300",
                "chunking_strategy[prefix_padding_ms]": "0",
                "chunking_strategy[threshold]": "0.7",
            },
            SpeechDetection(300, 0, 0.7),
        ),
        (
            {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 300}'},
            SpeechDetection(silence_duration_ms=300),
        ),
        (
            {"chunking_strategy": '{"type": "server_vad", "threshold": null}'},
            AS_DEPLOYED,
        ),
    ],
)
async def test_chunking_strategy_reaches_the_vad(
    client: httpx.AsyncClient,
    service: FakeService,
    fields: dict[str, Any],
    detection: SpeechDetection,
) -> None:
    response = await post(client, fields=fields)
    assert response.status_code == 200
    assert service.jobs[0].speech_detection == detection
    assert warned(response) == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"chunking_strategy": "semantic"}, "chunking_strategy"),
        ({"chunking_strategy": "{"}, "chunking_strategy"),
        ({"chunking_strategy[type]": "semantic_vad"}, "chunking_strategy"),
        (
            {"chunking_strategy[silence_duration_ms]": "50"},
            "chunking_strategy[silence_duration_ms]",
        ),
        (
            {"chunking_strategy[silence_duration_ms]": "6001"},
            "chunking_strategy[silence_duration_ms]",
        ),
        ({"chunking_strategy[prefix_padding_ms]": "-1"}, "chunking_strategy[prefix_padding_ms]"),
        ({"chunking_strategy[threshold]": "nan"}, "chunking_strategy[threshold]"),
        ({"chunking_strategy": '{"threshold": true}'}, "chunking_strategy[threshold]"),
        ({"chunking_strategy[silence_duration]": "500"}, "chunking_strategy[silence_duration]"),
        ({"chunking_strategy": '{"treshold": 0.5}'}, "chunking_strategy[treshold]"),
    ],
)
async def test_chunking_strategy_out_of_bounds_is_refused(
    client: httpx.AsyncClient, service: FakeService, fields: dict[str, Any], param: str
) -> None:
    response = await post(client, fields=fields)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert service.jobs == []


async def test_chunking_strategy_without_a_vad_has_no_effect(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    fields = {"chunking_strategy[threshold]": "0.2", "stages": "asr"}
    assert warned(await post(client, fields=fields)) == ["chunking_strategy"]


@pytest.mark.parametrize("response_format", ["srt", "vtt", "verbose_json"])
async def test_stream_is_ignored_for_formats_that_cannot_stream(
    client: httpx.AsyncClient, response_format: str
) -> None:
    response = await post(client, stream="true", response_format=response_format)
    plain = await post(client, response_format=response_format)
    assert response.status_code == 200
    assert response.headers["content-type"] == plain.headers["content-type"]
    assert warned(response) == ["stream"]


@pytest.mark.parametrize(
    "sent", ["word,segment", '["word", "segment"]', ["word", "segment"], " Word , segment"]
)
@pytest.mark.parametrize("name", ["timestamp_granularities", "timestamp_granularities[]"])
async def test_granularities_come_in_every_form_of_a_list(
    client: httpx.AsyncClient, name: str, sent: object
) -> None:
    body = (await post(client, fields={name: sent, "response_format": "verbose_json"})).json()
    assert {"words", "segments"} <= set(body)


async def test_granularities_go_with_every_format(client: httpx.AsyncClient) -> None:
    for response_format in ("json", "text", "srt"):
        response = await post(
            client, fields={"timestamp_granularities[]": "segment"}, response_format=response_format
        )
        assert response.status_code == 200
        assert warned(response) == []


@pytest.mark.parametrize("stages", ["asr,vad", '["asr", "vad"]', ["asr", "vad"], "asr，vad"])
@pytest.mark.parametrize("name", ["stages", "stages[]"])
async def test_stages_come_in_every_form_of_a_list(
    client: httpx.AsyncClient, service: FakeService, name: str, stages: object
) -> None:
    await post(client, fields={name: stages})
    assert service.jobs[0].stages == frozenset({"vad", "asr"})


async def test_empty_fields_count_as_absent(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    names = sorted(set(EVERYTHING) - {"model"})
    response = await post(client, fields={**dict.fromkeys(names, ""), "itn": "", "stages[]": " "})
    assert response.status_code == 200
    await post(client)
    first, second = service.jobs
    assert (first.recognition_options, first.stages) == (second.recognition_options, second.stages)
    assert (await post(client, fields={"temperature": ["", "0.5"]})).status_code == 200


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
async def test_logprobs_are_listed_token_by_token(
    client: httpx.AsyncClient, service: FakeService, response_format: str
) -> None:
    service.events = [sentence("你好", 0), sentence("a", 1000, "."), sentence("b", 2000, ".")]
    fields = {"include[]": "logprobs", "response_format": response_format}
    body = (await post(client, fields=fields)).json()
    assert "".join(one["token"] for one in body["logprobs"]) == body["text"]
    assert len(body["logprobs"]) == 4
    for one in body["logprobs"]:
        assert bytes(one["bytes"]).decode() == one["token"]
        assert one["logprob"] == pytest.approx(math.log(0.9), abs=1e-5)
    assert "logprobs" not in (await post(client, response_format=response_format)).json()


async def test_logprobs_of_a_stream_are_those_of_its_text(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.events = [sentence("a", 0, "."), sentence("b", 1000, ".")]
    streamed = await post(client, fields={"include": "logprobs"}, stream="true")
    *deltas, done = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line]
    assert [one for delta in deltas for one in delta["logprobs"]] == done["logprobs"]
    for event in (*deltas, done):
        text = event["delta"] if "delta" in event else event["text"]
        assert "".join(one["token"] for one in event["logprobs"]) == text


async def test_logprobs_of_another_format_have_no_effect(client: httpx.AsyncClient) -> None:
    response = await post(client, fields={"include[]": "logprobs"}, response_format="srt")
    assert warned(response) == ["include"]


@pytest.mark.parametrize(
    "fields",
    [
        {"replacements": "你好=>您好"},
        {"replacements": '{"你好": "您好"}'},
        {"replacements[你好]": "您好"},
        {"replacements[]": ["你好=>您好", "再见=>回见"]},
    ],
)
async def test_replacements_come_in_every_form_of_an_object(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    assert (await post(client, fields=fields)).json()["text"].startswith("您好。")
