from __future__ import annotations

import pytest

from serve_app.core.records import Pcm, Recognition, RecognitionOptions
from serve_app.engines.paraformer.cpu import ParaformerEngine
from tests.fakes.hotwords import LONG_LIST, TINY_SEACO, recognition_options_of
from tests.fakes.signals import speech_like
from tests.fakes.tiny_packs import tiny_paraformer

NOTHING = RecognitionOptions()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ParaformerEngine:
    return ParaformerEngine(tiny_paraformer(tmp_path_factory.mktemp("seaco") / "pack", TINY_SEACO))


@pytest.fixture(scope="module")
def batch() -> list[Pcm]:
    return [speech_like(length, length) for length in (40_000, 9_000, 64_000, 23_456)]


def _texts(
    engine: ParaformerEngine, batch: list[Pcm], recognition_options: list[RecognitionOptions]
) -> list[str]:
    results = engine.transcribe(batch, recognition_options)
    assert all(isinstance(result, Recognition) for result in results)
    return [
        "".join(token.text for token in result.tokens)
        for result in results
        if isinstance(result, Recognition)
    ]


def test_options_without_hotwords_change_nothing(
    engine: ParaformerEngine, batch: list[Pcm]
) -> None:
    assert engine.transcribe(
        batch, [RecognitionOptions(keywords=("一",))] * 4
    ) == engine.transcribe(batch)
    assert engine.transcribe(
        batch, [recognition_options_of("unwritable")] * 4
    ) == engine.transcribe(batch)


def test_each_item_uses_its_own_hotwords_in_any_batch(
    engine: ParaformerEngine, batch: list[Pcm]
) -> None:
    recognition_options = [
        recognition_options_of("一丁", "丂"),
        NOTHING,
        recognition_options_of("七丄丅"),
        recognition_options_of(*LONG_LIST),
    ]
    alone = [
        _texts(engine, [pcm], [options])[0]
        for pcm, options in zip(batch, recognition_options, strict=True)
    ]
    assert _texts(engine, batch, recognition_options) == alone
    assert _texts(engine, batch[::-1], recognition_options[::-1]) == alone[::-1]
    plain = _texts(engine, batch, [NOTHING] * 4)
    assert alone[1] == plain[1]
    assert alone != plain


def test_weights_above_one_equal_one_and_small_weights_have_no_effect(
    engine: ParaformerEngine, batch: list[Pcm]
) -> None:
    full = _texts(engine, batch, [recognition_options_of("一丁", "丂")] * 4)
    assert _texts(engine, batch, [recognition_options_of("一丁", "丂", weight=20.0)] * 4) == full
    faint = _texts(engine, batch, [recognition_options_of("一丁", "丂", weight=1e-6)] * 4)
    assert faint == _texts(engine, batch, [NOTHING] * 4)
    assert faint != full


def test_tokens_stay_inside_the_audio_and_in_order(
    engine: ParaformerEngine, batch: list[Pcm]
) -> None:
    for pcm, result in zip(
        batch, engine.transcribe(batch, [recognition_options_of("一丁")] * 4), strict=True
    ):
        assert isinstance(result, Recognition)
        edges = [edge for token in result.tokens for edge in (token.start_ms, token.end_ms)]
        assert edges == sorted(edges)
        assert not edges or (edges[0] >= 0 and edges[-1] <= len(pcm) / 16)
