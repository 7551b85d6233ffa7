"""Whisper on the CPU by whisper.cpp: drafts and their quality."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.core.languages import GUESSED
from serve_app.core.records import (
    NO_OPTIONS,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_MS,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
)
from serve_app.engines.paraformer.speech_edges import snap_words_to_speech_edges
from serve_app.engines.whisper.binding import (
    DecodingOptions,
    WhisperModel,
    WhisperRefused,
    WordTimes,
)
from serve_app.engines.whisper.text import WhisperToken, tokens_of
from serve_app.packs.ggml import MODEL_CLASS
from serve_app.packs.pack import PackContents

_WINDOW_SAMPLES = 30 * SAMPLE_RATE_HZ
_WINDOW_FRAMES = 500  # of 60 ms, as `ports.Recognizer.cost` counts
_MIN_SAMPLES = 400
_FULL_SCALE = 32_768.0
_CHINESE = frozenset({"zh", "yue"})


@dataclass(frozen=True, slots=True)
class WhisperOptions:
    """How an engine decodes.

    Attributes:
        num_threads: of each call.
        language: default language; a code that Whisper supports, or `auto` to detect it per item.
        languages: languages that requests may name; the model must support them.
        simplified: convert Chinese, requested or detected, to simplified characters. Other
            languages, such as Japanese, are not converted.
        word_times: `attention` reads them from the alignment heads, where these are known;
            `even` spreads words evenly, which takes less time.
        temperature_step: added to the temperature to decode a bad draft again; 0 keeps drafts
            repeatable.
        no_speech_threshold: a window has no words if its no-speech probability exceeds this and
            its mean log-probability is below `log_probability_threshold`.
        log_probability_threshold: see `no_speech_threshold`.
    """

    num_threads: int = 1
    language: str = "zh"
    languages: tuple[str, ...] = ("zh",)
    simplified: bool = True
    word_times: WordTimes = "attention"
    temperature_step: float = 0.0
    no_speech_threshold: float = 0.6
    log_probability_threshold: float = -1.0


@dataclass(frozen=True, slots=True)
class DraftQuality:
    """Quality measures of a draft, as Whisper's authors use them.

    Attributes:
        mean_log_probability: of the decoded tokens, natural logarithm.
        compression_ratio: of the text by zlib; high for repetitive text.

    Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision",
    section 4.5.
    """

    mean_log_probability: float
    compression_ratio: float


@dataclass(frozen=True, slots=True)
class Draft:
    """The draft of one chunk.

    Attributes:
        recognition: the words, none for a chunk without speech, and their language, which is
            unknown only if it was to be detected in a silent chunk.
        quality: None without words.
    """

    recognition: Recognition
    quality: DraftQuality | None


class WhisperCppEngine:
    """Recognizes with a Whisper pack; implements `ports.Recognizer`.

    Every chunk is decoded separately in windows of 30 s, so that one second costs as much as half a
    minute. Calls on several threads run one at a time.

    Args:
        pack: a directory with a ggml file.
        options: how to decode.

    Raises:
        PackError: the pack cannot be run.
        ConfigurationError: a library is missing, or the model lacks a language.
    """

    max_in_flight = 1
    is_reentrant = False  # calls run one at a time

    def __init__(self, pack: PackContents, options: WhisperOptions | None = None) -> None:
        options = WhisperOptions() if options is None else options
        if pack.model_class != MODEL_CLASS:
            raise PackCorrupt(
                pack.name,
                f"it holds a model of class {pack.model_class}, no Whisper model",
                "Name a pack with a ggml file of whisper.cpp's",
            )
        self._to_simplified = _simplifier() if options.simplified else None
        self._model = WhisperModel(
            pack.weights,
            pack.name,
            DecodingOptions(
                num_threads=options.num_threads,
                word_times=options.word_times,
                temperature_step=options.temperature_step,
                no_speech_threshold=options.no_speech_threshold,
                log_probability_threshold=options.log_probability_threshold,
            ),
        )
        self._language = options.language
        for language in (options.language, *options.languages):
            if not self._model.knows(language):
                raise ConfigurationError(
                    f"{pack.name} does not support language {language!r}; see "
                    "recognizer.languages and recognizer.whisper.language"
                )
        # The first pass reads the weights.
        self._model.decode(np.zeros(SAMPLE_RATE_HZ, np.float32), options.language)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Recognizes each item; see `ports.Recognizer`. Only the language option is used."""
        return [
            draft if isinstance(draft, ChunkFailure) else draft.recognition
            for draft in self.draft(batch, recognition_options)
        ]

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]:
        """Returns the words of each item and their quality.

        Args:
            batch: samples, each of shape [n].
            recognition_options: empty, or one per item.
        """
        options = list(recognition_options) or [NO_OPTIONS] * len(batch)
        return [
            self._draft(pcm, self.language_of(each))
            for pcm, each in zip(batch, options, strict=True)
        ]

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        """Returns the language of an item with these options; None if it is detected."""
        language = recognition_options.language or self._language
        return None if language == GUESSED else language

    def cost(self, num_samples: int) -> int:
        """Returns the encoder frames of an item, in whole windows."""
        return max(1, -(-num_samples // _WINDOW_SAMPLES)) * _WINDOW_FRAMES

    def _draft(self, pcm: Pcm, language: str | None) -> Draft | ChunkFailure:
        if len(pcm) < _MIN_SAMPLES or not pcm.any():
            return Draft(Recognition((), language=language), None)
        if language is not None and not self._model.knows(language):
            return ChunkFailure(
                "unsupported_language", f"Whisper does not support language {language!r}"
            )
        try:
            decoded = self._model.decode(pcm.astype(np.float32) / _FULL_SCALE, language or GUESSED)
        except WhisperRefused as refusal:
            return ChunkFailure("draft_failed", f"whisper.cpp returned {refusal.args[0]}")
        convert = self._to_simplified if decoded.language in _CHINESE else None
        tokens = snap_words_to_speech_edges(
            pcm, tokens_of(decoded.tokens, len(pcm) // SAMPLES_PER_MS, convert)
        )
        quality = quality_of(decoded.tokens) if tokens else None
        return Draft(Recognition(tokens, language=decoded.language), quality)


def quality_of(tokens: Sequence[WhisperToken]) -> DraftQuality:
    """Returns the quality of a non-empty draft."""
    text = b"".join(token.text for token in tokens)
    return DraftQuality(
        sum(token.log_probability for token in tokens) / len(tokens),
        len(text) / len(zlib.compress(text)),
    )


def _simplifier() -> Callable[[str], str]:
    try:
        opencc = importlib.import_module("opencc")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "simplified characters need opencc, which is not installed; run: "
            "pip install 'paraserve[whisper]', or set recognizer.whisper.simplified to false"
        ) from error
    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    return convert
