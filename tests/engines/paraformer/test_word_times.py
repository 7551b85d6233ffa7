"""Times of words against the signal, for each model class on each engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serve_app.core.ports import Recognizer
from serve_app.core.records import SAMPLES_PER_MS, Recognition, Token
from serve_app.engines.cuda.options import GpuOptions
from serve_app.engines.cuda.paraformer import GpuParaformer
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.engines.paraformer.onnx import ParaformerOnnxEngine
from serve_app.engines.paraformer.speech_edges import speech_runs
from serve_app.modeltools.onnx_export import export
from serve_app.packs import PackContents, open_pack
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from tests.engines.paraformer.test_speech_edges import RUNS_MS, voiced
from tests.fakes.sentence_edges import (
    assert_close_to_the_signal,
    demo_recording,
    edge_errors_ms,
    spoken_sentences,
)
from tests.fakes.tiny_packs import TinyParaformer, tiny_paraformer

pytestmark = pytest.mark.slow

CLASSES = ("Paraformer", "BiCifParaformer", "SeacoParaformer")
_AROUND_MS = 300


def _exported(pack: PackContents, folder: Path) -> Recognizer:
    return ParaformerOnnxEngine(export(pack, folder / "exported", "float32"))


ENGINES: dict[str, Callable[[PackContents, Path], Recognizer]] = {
    "cpu": lambda pack, folder: ParaformerEngine(pack),
    "onnx": _exported,
    "gpu": lambda pack, folder: GpuParaformer(
        pack, GpuOptions(device="cpu", dtype="float32", max_batch_rows=500)
    ),
}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_sentences_of_the_demo_begin_and_end_with_their_sound(engine: str, tmp_path: Path) -> None:
    recognizer = ENGINES[engine](open_pack(BUILTIN_DIRECTORY / "paraformer-demo"), tmp_path)
    recording = demo_recording()
    sentences = spoken_sentences(recording)
    words: list[Token] = []
    for sentence in sentences:
        first_ms = sentence.start_ms - _AROUND_MS
        last_ms = sentence.end_ms + _AROUND_MS
        pcm = recording[first_ms * SAMPLES_PER_MS : last_ms * SAMPLES_PER_MS]
        (heard,) = recognizer.transcribe([pcm])
        assert isinstance(heard, Recognition)
        words += (
            replace(word, start_ms=word.start_ms + first_ms, end_ms=word.end_ms + first_ms)
            for word in heard.tokens
        )
    assert_close_to_the_signal(edge_errors_ms(words, sentences))


def test_sentences_begin_and_end_with_their_sound_in_noise() -> None:
    """Without the help of the signal, which does not tell where it ends."""
    engine = ParaformerEngine(open_pack(BUILTIN_DIRECTORY / "paraformer-demo"))
    recording = demo_recording()
    errors_ms: list[int] = []
    for sentence in spoken_sentences(recording):
        first_ms = sentence.start_ms - _AROUND_MS
        last_ms = sentence.end_ms + _AROUND_MS
        pcm = recording[first_ms * SAMPLES_PER_MS : last_ms * SAMPLES_PER_MS]
        noise = np.random.default_rng(sentence.start_ms).normal(0, 900, len(pcm))
        noisy = np.clip(pcm + noise, -32_768, 32_767).astype(np.int16)
        assert not speech_runs(noisy)
        (heard,) = engine.transcribe([noisy])
        assert isinstance(heard, Recognition)
        errors_ms.append(heard.tokens[0].start_ms - _AROUND_MS)
        errors_ms.append(heard.tokens[-1].end_ms - (sentence.end_ms - first_ms))
    assert np.mean(np.abs(errors_ms)) <= 80
    assert np.abs(errors_ms[::2]).max() <= 90


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("engine", list(ENGINES))
def test_no_word_lies_in_a_pause(engine: str, model_class: str, tmp_path: Path) -> None:
    pack = tiny_paraformer(tmp_path / "pack", TinyParaformer(model_class, seed=6))
    (heard,) = ENGINES[engine](pack, tmp_path).transcribe([voiced(*RUNS_MS, duration_ms=2800)])
    assert isinstance(heard, Recognition)
    assert len(heard.tokens) > 2
    for word in heard.tokens:
        assert any(
            start_ms - 10 <= word.start_ms <= word.end_ms <= end_ms + 10
            for start_ms, end_ms in RUNS_MS
        )
