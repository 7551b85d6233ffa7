from __future__ import annotations

from serve_app.inference.loading import NeededPack, fetch_packs, packs_of
from serve_app.settings import Settings


def test_packs_are_those_of_the_stages_all_models_and_the_drafter() -> None:
    settings = Settings.model_validate(
        {
            "stages": ["asr", "punctuation"],
            "recognizer": {
                "engine": "hybrid",
                "pack": "paraformer-large",
                "other_packs": ["paraformer-small"],
                "whisper": {"pack": "whisper-small"},
            },
        }
    )
    assert packs_of(settings) == (
        NeededPack("asr", "paraformer-large"),
        NeededPack("asr", "paraformer-small"),
        NeededPack("punctuation", "ct-punc-demo"),
        NeededPack("draft", "whisper-small"),
    )


def test_engine_without_drafts_needs_no_drafter() -> None:
    assert [needed.role for needed in packs_of(Settings())] == ["vad", "asr", "punctuation"]


def test_progress_names_the_role_of_each_pack() -> None:
    told: list[str] = []
    fetch_packs(Settings(offline=True), told.append)
    assert told == [
        "model pack for vad: fsmn-vad",
        "model pack for asr: paraformer-demo",
        "model pack for punctuation: ct-punc-demo",
    ]
