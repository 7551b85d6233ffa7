from __future__ import annotations

import pytest

from serve_app.api.models import offer_of
from serve_app.api.parameters import parse_parameters
from serve_app.core.errors import ModelNotFound
from serve_app.settings import Settings


def model_of(name: str, **sections: object) -> str:
    settings = Settings.model_validate({"profile": "demo", **sections})
    return parse_parameters({"model": [name]}, offer_of(settings)).model


@pytest.mark.parametrize(
    "name",
    [
        "gpt-transcribe",
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15",
        "gpt-4o-transcribe-diarize",
        "paraformer-zh",
        "paraformer",
        "iic/speech_seaco_paraformer_large_asr_nat-zh-cn-16k-common-vocab8404-pytorch",
    ],
)
def test_names_of_openai_and_funasr_mean_the_demo_model_by_default(name: str) -> None:
    assert model_of(name) == "paraformer-demo"


def test_names_of_funasr_mean_nothing_where_whisper_is_served() -> None:
    recognizer = {"engine": "whispercpp", "pack": "whisper-base"}
    assert model_of("gpt-transcribe", recognizer=recognizer) == "whisper-base"
    with pytest.raises(ModelNotFound, match="whisper-base, gpt-transcribe"):
        model_of("paraformer-zh", recognizer=recognizer)


def test_policies_are_those_of_the_settings() -> None:
    settings = Settings.model_validate(
        {
            "profile": "demo",
            "http": {"unknown_fields": "refuse"},
            "recognizer": {"unwritable_hotwords": "refuse"},
        }
    )
    offer = offer_of(settings)
    assert (offer.unknown_fields, offer.unwritable_hotwords) == ("refuse", "refuse")
