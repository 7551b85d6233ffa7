"""Which language a chunk is heard as, and what follows from it; without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from serve_app.core.languages import GUESSED
from serve_app.core.records import NO_OPTIONS, ChunkFailure, RecognitionOptions
from serve_app.engines.whisper import binding
from serve_app.engines.whisper import engine as whisper_engine
from serve_app.engines.whisper.binding import Decoded, DecodingOptions, WhisperModel
from serve_app.engines.whisper.engine import Draft, WhisperCppEngine, WhisperOptions
from serve_app.engines.whisper.text import WhisperToken
from serve_app.packs import PackContents
from serve_app.packs.pack import open_pack
from tests.fakes.ggml_file import WhisperShape, write_ggml

NOISE = np.random.default_rng(0).integers(-9000, 9000, 16_000).astype(np.int16)
OPTIONS = DecodingOptions(1, "even", 0.0, 0.6, -1.0)
MULTILINGUAL, ENGLISH = 51_865, 51_864  # entries of the vocabulary


@dataclass
class GuessingModel:
    """Hears one traditional character in everything, in the language that it guesses."""

    guess: str
    asked: list[str] = field(default_factory=list)

    def knows(self, language: str) -> bool:
        return True

    def decode(self, samples: npt.NDArray[np.float32], language: str) -> Decoded:
        self.asked.append(language)
        spoken = self.guess if language == GUESSED else language
        return Decoded([WhisperToken("學".encode(), 0.9, -0.1, 500.0)], spoken)


class Library(SimpleNamespace):
    """What of pywhispercpp a model touches that hears nothing."""

    whisper_sampling_strategy = SimpleNamespace(WHISPER_SAMPLING_GREEDY=0)

    def __getattr__(self, name: str) -> object:
        return lambda *_: SimpleNamespace()

    def whisper_token_eot(self, _: object) -> int:
        return 1

    def whisper_lang_id(self, language: str) -> int:
        return {"en": 0, "zh": 1}.get(language, -1)

    def whisper_lang_str(self, _: object) -> str:
        return "en"

    def whisper_full(self, _: object, parameters: SimpleNamespace, *__: object) -> int:
        self.asked: str = parameters.language
        return 0

    def whisper_full_n_segments(self, _: object) -> int:
        return 0


def whisper_pack_of(directory: Path, num_tokens: int = MULTILINGUAL) -> PackContents:
    shape = WhisperShape(num_tokens, 1500, 64, 1, 4, 448, 64, 1, 4)
    tensors = {"encoder.conv1.bias": np.zeros(64, np.float16)}
    write_ggml(directory / "ggml-tiny.bin", shape, [b"a"], tensors)
    return open_pack(directory)


def heard(
    engine: WhisperCppEngine, recognition_options: RecognitionOptions = NO_OPTIONS
) -> tuple[str, str | None]:
    """Returns the text of a draft and its language."""
    (draft,) = engine.draft([NOISE], [recognition_options])
    assert isinstance(draft, Draft)
    text = "".join(token.text for token in draft.recognition.tokens)
    return text, draft.recognition.language


@pytest.mark.parametrize(
    ("default", "guess", "named", "text", "language"),
    [
        ("auto", "zh", None, "学", "zh"),
        ("auto", "yue", None, "学", "yue"),
        ("auto", "ja", None, "學", "ja"),
        ("auto", "ja", "zh", "学", "zh"),
        ("zh", "ja", None, "学", "zh"),
        ("zh", "zh", "ja", "學", "ja"),
    ],
)
def test_only_chinese_is_simplified(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    default: str,
    guess: str,
    named: str | None,
    text: str,
    language: str,
) -> None:
    monkeypatch.setattr(whisper_engine, "WhisperModel", lambda *_: GuessingModel(guess))
    engine = WhisperCppEngine(whisper_pack_of(tmp_path), WhisperOptions(language=default))
    assert heard(engine, RecognitionOptions(language=named)) == (text, language)
    assert engine.language_of(RecognitionOptions(language=named)) == (
        None if named is None and default == "auto" else language
    )


def test_detected_language_of_silence_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = GuessingModel("ja")
    monkeypatch.setattr(whisper_engine, "WhisperModel", lambda *_: model)
    engine = WhisperCppEngine(whisper_pack_of(tmp_path), WhisperOptions(language="auto"))
    model.asked.clear()
    (draft,) = engine.draft([np.zeros(16_000, np.int16)])
    assert not isinstance(draft, ChunkFailure)
    assert draft.recognition.language is None
    assert not model.asked


@pytest.mark.parametrize(
    ("num_tokens", "known"),
    [(MULTILINGUAL, {"en": True, "zh": True}), (ENGLISH, {"en": True, "zh": False})],
)
def test_monolingual_model_supports_no_other_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_tokens: int, known: dict[str, bool]
) -> None:
    monkeypatch.setattr(binding, "_library", Library)
    pack = whisper_pack_of(tmp_path, num_tokens)
    model = WhisperModel(pack.weights, pack.name, OPTIONS)
    assert {language: model.knows(language) for language in known} == known
    assert model.knows(GUESSED)


@pytest.mark.parametrize(("num_tokens", "asked"), [(MULTILINGUAL, "auto"), (ENGLISH, "en")])
def test_monolingual_model_never_detects_the_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_tokens: int, asked: str
) -> None:
    library = Library()
    monkeypatch.setattr(binding, "_library", lambda: library)
    pack = whisper_pack_of(tmp_path, num_tokens)
    model = WhisperModel(pack.weights, pack.name, OPTIONS)
    assert model.decode(np.zeros(32_000, np.float32), GUESSED) == Decoded([], "en")
    assert library.asked == asked
