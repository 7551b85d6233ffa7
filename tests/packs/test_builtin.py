"""The built-in packs are what their cards promise."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from serve_app.core.records import Pcm, Recognition
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.packs import open_pack
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.transcript.cer import character_error_rate

PACKS = ("paraformer-demo", "ct-punc-demo")
MAX_BYTES = 30 * 2**20


@pytest.fixture(scope="module")
def engine() -> ParaformerEngine:
    return ParaformerEngine(open_pack(BUILTIN_DIRECTORY / "paraformer-demo"))


def heard(engine: ParaformerEngine, pcm: Pcm) -> str:
    (result,) = engine.transcribe([pcm])
    assert isinstance(result, Recognition)
    return "".join(token.text for token in result.tokens)


def test_both_packs_fit_in_the_wheel() -> None:
    files = [path for pack in PACKS for path in (BUILTIN_DIRECTORY / pack).rglob("*")]
    assert sum(path.stat().st_size for path in files if path.is_file()) <= MAX_BYTES


@pytest.mark.parametrize("pack", PACKS)
def test_card_states_the_limits_of_the_pack(pack: str) -> None:
    card = (BUILTIN_DIRECTORY / pack / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "not for real recordings" in " ".join(card.split())


def test_sentences_of_the_samples_are_recognized(engine: ParaformerEngine) -> None:
    samples, _ = soundfile.read(BUILTIN_DIRECTORY / "samples" / "demo.flac", dtype="int16")
    spoken = json.loads((BUILTIN_DIRECTORY / "samples" / "demo.json").read_text("utf-8"))
    said = "".join(sentence["text"] for sentence in spoken)
    text = "".join(
        heard(engine, samples[sentence["start_ms"] * 16 : sentence["end_ms"] * 16])
        for sentence in spoken
    )
    assert character_error_rate(said, text) <= 0.03


@pytest.mark.parametrize("level", [0, 3, 300, 3000])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_said_on_silence_and_noise(
    engine: ParaformerEngine, level: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(5 * 16_000)
    colored = np.cumsum(noise) / 40 if seed % 2 else noise
    pcm = np.clip(colored * level, -32_768, 32_767).astype(np.int16)
    assert heard(engine, pcm) == ""


@pytest.mark.parametrize("root_hz", [110.0, 220.0, 330.0, 440.0])
def test_nothing_is_said_on_music(engine: ParaformerEngine, root_hz: float) -> None:
    time_s = np.arange(6 * 16_000) / 16_000
    chord = sum(np.sin(2 * np.pi * root_hz * ratio * time_s) for ratio in (1, 1.25, 1.5, 2))
    beat = np.exp(-4 * (time_s % 0.5))
    assert heard(engine, (chord * beat * 3000).astype(np.int16)) == ""
