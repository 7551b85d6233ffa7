from __future__ import annotations

from serve_app.api.models import ModelCatalogue
from serve_app.core.errors import NotReady
from serve_app.core.records import Hints, HotwordCheck, Origin
from tests.fakes.service import FakeService


class Asleep(FakeService):
    async def check_hotwords(self, hints: Hints, origin: Origin) -> HotwordCheck:
        raise NotReady("asr")


async def test_alias_names_its_pack_and_takes_what_that_takes() -> None:
    models = await ModelCatalogue(FakeService()).models()
    assert [(model["id"], model["root"]) for model in models] == [
        ("paraformer-demo", "paraformer-demo"),
        ("whisper-1", "paraformer-demo"),
    ]
    assert [model["hotwords"] for model in models] == [True, True]


async def test_pack_is_asked_once() -> None:
    service = FakeService()
    service.hotword_problem = "it has no bias encoder"
    catalogue = ModelCatalogue(service)
    for _ in range(2):
        assert [model["hotwords"] for model in await catalogue.models()] == [False, False]
    assert len(service.hints) == 1


async def test_names_are_told_while_the_recogniser_is_not_there() -> None:
    models = await ModelCatalogue(Asleep()).models()
    assert len(models) == 2
    assert all("hotwords" not in model for model in models)
