"""Whisper on the CPU, by whisper.cpp: whole drafts, and what speaks against them."""

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
        language: of items whose hints name none; a code that Whisper knows, or `auto` to
            have it guessed item by item.
        languages: that hints may name; the model must know them.
        simplified: write Chinese in simplified characters, whatever Whisper chose. Not where
            the language, named or guessed, is another one: Japanese shares characters and has
            no such script.
        word_times: `attention` reads them off the model's attention, where its alignment
            heads are known; `even` spreads them over what was said, which takes less time.
        temperature_step: added to the temperature to try again where a draft looks bad; 0
            keeps drafts repeatable.
        no_speech_threshold: a window whose no-speech probability exceeds this has no words,
            if its mean log-probability is under `log_probability_threshold` as well.
        log_probability_threshold: see there.
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
    """What Whisper's authors look at before they trust a transcript.

    Attributes:
        mean_log_probability: of the decoded vocabulary entries, natural logarithm.
        compression_ratio: of the text by zlib; high where it repeats itself.

    Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision",
    section 4.5.
    """

    mean_log_probability: float
    compression_ratio: float


@dataclass(frozen=True, slots=True)
class Draft:
    """What was heard in one chunk.

    Attributes:
        recognition: the words, none where Whisper heard no speech; and their language, which
            is unknown only where it was to be guessed and there was nothing to hear.
        quality: None without words.
    """

    recognition: Recognition
    quality: DraftQuality | None


class WhisperCppEngine:
    """Recognizes with a Whisper pack; implements `ports.Recognizer`.

    Every chunk is decoded alone, in windows of 30 s that a shorter chunk does not fill:
    a second costs as much as half a minute. Calls on several threads take turns.

    Args:
        pack: a directory with a ggml file.
        options: how to decode.

    Raises:
        PackError: the pack cannot be run.
        ConfigurationError: a library is missing, or a language is unknown to the model.
    """

    max_in_flight = 1
    is_reentrant = False  # calls take turns

    def __init__(self, pack: PackContents, options: WhisperOptions | None = None) -> None:
        options = WhisperOptions() if options is None else options
        if pack.model_class != MODEL_CLASS:
            raise PackCorrupt(
                pack.name,
                f"it holds a model of class {pack.model_class}, no Whisper model",
                "Name a pack with a ggml file of whisper.cpp's",
            )
        self._script = _simplifier() if options.simplified else None
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
                    f"{pack.name} knows no language {language!r}; see recognizer.languages and "
                    "recognizer.whisper.language"
                )
        # The first pass touches the weights.
        self._model.decode(np.zeros(SAMPLE_RATE_HZ, np.float32), options.language)

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        """Recognizes each item; see `ports.Recognizer`. Of the hints it uses the language."""
        return [
            draft if isinstance(draft, ChunkFailure) else draft.recognition
            for draft in self.draft(batch, recognition_options)
        ]

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]:
        """Returns, for each item, its words and how far they can be trusted.

        Args:
            batch: samples, each of shape [n].
            recognition_options: none at all, or one per item, each with a language or without.
        """
        asked = list(recognition_options) or [NO_OPTIONS] * len(batch)
        return [
            self._draft(pcm, self.language_of(hint)) for pcm, hint in zip(batch, asked, strict=True)
        ]

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        """What an item with these hints is heard as; None where that is guessed."""
        language = recognition_options.language or self._language
        return None if language == GUESSED else language

    def cost(self, num_samples: int) -> int:
        """Encoder frames of an item: those of whole windows."""
        return max(1, -(-num_samples // _WINDOW_SAMPLES)) * _WINDOW_FRAMES

    def _draft(self, pcm: Pcm, language: str | None) -> Draft | ChunkFailure:
        if len(pcm) < _MIN_SAMPLES or not pcm.any():
            return Draft(Recognition((), language=language), None)
        if language is not None and not self._model.knows(language):
            return ChunkFailure("unsupported_language", f"Whisper knows no language {language!r}")
        try:
            heard = self._model.decode(pcm.astype(np.float32) / _FULL_SCALE, language or GUESSED)
        except WhisperRefused as refusal:
            return ChunkFailure("draft_failed", f"whisper.cpp returned {refusal.args[0]}")
        script = self._script if heard.language in _CHINESE else None
        tokens = snap_words_to_speech_edges(
            pcm, tokens_of(heard.pieces, len(pcm) // SAMPLES_PER_MS, script)
        )
        quality = quality_of(heard.pieces) if tokens else None
        return Draft(Recognition(tokens, language=heard.language), quality)


def quality_of(pieces: Sequence[WhisperToken]) -> DraftQuality:
    """Measures what was decoded; `pieces` are not empty."""
    text = b"".join(piece.text for piece in pieces)
    return DraftQuality(
        sum(piece.log_probability for piece in pieces) / len(pieces),
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
