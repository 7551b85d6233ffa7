from __future__ import annotations

from serve_app.api.models import ServedModels
from serve_app.core.errors import NotReady
from serve_app.core.records import HotwordCheck, RecognitionOptions, RequestContext
from tests.fakes.service import FakeService


class Asleep(FakeService):
    async def check_hotwords(
        self, recognition_options: RecognitionOptions, context: RequestContext
    ) -> HotwordCheck:
        raise NotReady("asr")


async def test_alias_supports_the_same_options_as_its_pack() -> None:
    models = await ServedModels(FakeService()).models()
    assert [(model["id"], model["root"]) for model in models] == [
        ("paraformer-demo", "paraformer-demo"),
        ("whisper-1", "paraformer-demo"),
    ]
    assert [model["hotwords"] for model in models] == [True, True]


async def test_pack_is_asked_once() -> None:
    service = FakeService()
    service.hotword_problem = "it has no bias encoder"
    served_models = ServedModels(service)
    for _ in range(2):
        assert [model["hotwords"] for model in await served_models.models()] == [False, False]
    assert len(service.recognition_options) == 1


async def test_names_are_listed_while_the_recognizer_is_unavailable() -> None:
    models = await ServedModels(Asleep()).models()
    assert len(models) == 2
    assert all("hotwords" not in model for model in models)


async def test_models_list_the_languages_that_can_be_asked_for() -> None:
    service = FakeService()
    served_models = ServedModels(service)
    assert (await served_models.models())[0]["languages"] == ["zh"]
    service.changed = {"languages": ("zh", "en"), "guesses_language": True}
    assert (await served_models.models())[0]["languages"] == ["zh", "en", "auto"]
