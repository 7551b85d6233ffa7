"""Which of several models spoke, as `verbose_json` says it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from serve_app.api.parameters import TranscriptionParameters
from serve_app.api.responses import verbose_json
from serve_app.core.records import Token
from serve_app.transcript.transcript import MarkedToken, Sentence, Transcript


def body_of(parameters: TranscriptionParameters, *models: str | None) -> Any:
    tokens = tuple(
        MarkedToken(Token("字", number, number + 1, 0.9, model))
        for number, model in enumerate(models)
    )
    transcript = Transcript(100, (Sentence(tokens),))
    return verbose_json(
        transcript, replace(parameters, granularities=frozenset({"segment", "word"}))
    )


@pytest.fixture
def parameters() -> TranscriptionParameters:
    return TranscriptionParameters(
        model="m", language="zh", response_format="verbose_json", stages=frozenset({"asr"})
    )


def test_segment_and_words_name_the_model_that_spoke(parameters: TranscriptionParameters) -> None:
    body = body_of(parameters, "rough", "rough")
    assert body["segments"][0]["model"] == "rough"
    assert [word["model"] for word in body["words"]] == ["rough", "rough"]


def test_segment_of_two_models_names_both_in_order(parameters: TranscriptionParameters) -> None:
    body = body_of(parameters, "rough", "fine", "rough")
    assert body["segments"][0]["model"] == "rough+fine"


def test_single_model_is_not_named(parameters: TranscriptionParameters) -> None:
    body = body_of(parameters, None)
    assert "model" not in body["segments"][0]
    assert "model" not in body["words"][0]
