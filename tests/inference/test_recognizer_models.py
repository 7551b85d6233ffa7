"""The models of the settings in a cache, under the names that callers use."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from serve_app.core.errors import ConfigurationError, ModelUnavailable
from serve_app.core.records import Chunk, Hotword, Recognition, RecognitionOptions, RequestContext
from serve_app.inference.batched import recognizer_limits
from serve_app.inference.recognizer_models import RecognizerModels
from serve_app.settings import Settings
from tests.fakes.tiny_packs import TinyParaformer, write_paraformer

LOGGER = logging.getLogger("models")


def _settings(*packs: Path, **recognizer: object) -> Settings:
    first, *others = (f"dir:{pack}" for pack in packs)
    section = {"pack": first, "other_packs": others, **recognizer}
    return Settings.model_validate({"profile": "asr-only", "recognizer": section})


@pytest.fixture
def packs(tmp_path: Path) -> tuple[Path, Path]:
    seaco = TinyParaformer("SeacoParaformer", seed=2)
    return (
        write_paraformer(tmp_path / "first", seaco),
        write_paraformer(tmp_path / "second", TinyParaformer(seed=3)),
    )


@pytest.fixture
async def opened(packs: tuple[Path, Path]) -> AsyncIterator[RecognizerModels]:
    settings = _settings(*packs)
    opened = RecognizerModels(settings, recognizer_limits(settings), LOGGER)
    yield opened
    await opened.cache.close()


def _chunk(model: str | None) -> Chunk:
    return Chunk(
        RequestContext("r"), 0, 0, np.ones(16_000, np.int16), RecognitionOptions(model=model)
    )


async def test_directory_pack_is_named_by_its_last_part(opened: RecognizerModels) -> None:
    assert opened.readiness.pack == "first"
    for model in (None, "first", "second"):
        (result,) = await opened.cache.transcribe([_chunk(model)])
        assert isinstance(result, Recognition)
    assert opened.cache.cache_statistics().loaded == ("first", "second")


async def test_hotwords_are_validated_by_the_same_names(opened: RecognizerModels) -> None:
    words = (Hotword("龘"),)
    for model in (None, "first"):
        assert opened.hotword_validator.validate(RecognitionOptions(model, words)).unwritable == (
            "龘",
        )
    no_use = opened.hotword_validator.validate(RecognitionOptions("second", words)).no_use
    assert no_use is not None
    assert no_use.startswith("model second has no bias encoder")


async def test_reason_of_a_failed_load_is_logged_and_not_sent_to_the_caller(
    opened: RecognizerModels, packs: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(packs[1])
    with pytest.raises(ModelUnavailable) as told:
        await opened.cache.transcribe([_chunk("second")])
    assert str(packs[1]) not in str(told.value)
    assert str(packs[1]) in caplog.text


async def test_model_larger_than_the_budget_fails_the_start(packs: tuple[Path, Path]) -> None:
    settings = _settings(*packs, models_bytes=1)
    with pytest.raises(ConfigurationError, match="model first alone takes"):
        RecognizerModels(settings, recognizer_limits(settings), LOGGER)
