"""What a request tells the recognizer beside the audio, from the form to the job."""

from __future__ import annotations

import httpx

from serve_app.core.records import NO_OPTIONS, Hotword, RecognitionOptions
from tests.api.test_transcription import error_of, post
from tests.fakes.service import FakeService


async def test_request_without_hints_is_as_before(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    await post(client)
    await post(client, hotwords="", keywords=" ", refine_keywords="")
    assert [job.recognition_options for job in service.jobs] == [NO_OPTIONS, NO_OPTIONS]
    assert service.recognition_options == []  # nobody was asked


async def test_hotwords_and_model_reach_the_job(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.other_models = ("large",)
    response = await post(client, model="large", hotwords="阿里巴巴 20\n通义")
    assert response.status_code == 200
    recognition_options = RecognitionOptions(
        "large", (Hotword("阿里巴巴", 20.0), Hotword("通义", 1.0))
    )
    assert service.jobs[0].recognition_options == recognition_options
    assert service.recognition_options == [recognition_options]


async def test_hotwords_for_a_model_without_support_are_a_400(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.hotword_problem = "model x has no bias encoder"
    for stream in ("false", "true"):
        response = await post(client, hotwords="通义", stream=stream)
        assert response.status_code == 400
        error = error_of(response)
        assert (error["type"], error["param"], error["code"]) == (
            "invalid_request_error",
            "hotwords",
            "invalid_parameter",
        )
        assert "no bias encoder" in error["message"]
    assert service.jobs == []


async def test_requested_language_reaches_the_job(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    service.languages = ("zh", "en")
    for language in ("en-US", "zh", ""):
        await post(client, language=language)
    assert [job.recognition_options.language for job in service.jobs] == ["en", "zh", None]


async def test_addresses_and_files_are_a_400(
    client: httpx.AsyncClient, service: FakeService
) -> None:
    for value in ("http://host/words.txt", "words.txt", "/etc/passwd"):
        response = await post(client, hotwords=value)
        assert response.status_code == 400
        assert "not file paths or URLs" in error_of(response)["message"]
    assert service.jobs == []


async def test_words_to_refine_are_refused_without_a_draft(client: httpx.AsyncClient) -> None:
    response = await post(client, refine_keywords="交易")
    assert response.status_code == 400
    assert error_of(response)["param"] == "refine_keywords"


async def test_all_models_are_listed(client: httpx.AsyncClient, service: FakeService) -> None:
    service.other_models = ("large", "small")
    listed = (await client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in listed] == ["paraformer-demo", "large", "small", "whisper-1"]
    refused = error_of(await post(client, model="tiny"))
    assert refused["code"] == "model_not_found"
    assert "paraformer-demo, large, small" in refused["message"]
