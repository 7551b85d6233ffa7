"""The engines around whisper.cpp, out of their settings."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.core.errors import ConfigurationError
from serve_app.core.ports import Recognizer
from serve_app.engines.hybrid import HybridOptions, HybridRecognizer
from serve_app.engines.whisper.engine import WhisperCppEngine, WhisperOptions
from serve_app.packs import PackContents
from serve_app.settings import Settings


def open_drafts(settings: Settings, pack: PackContents) -> WhisperCppEngine:
    """Loads whisper.cpp alone, on the CPU.

    Raises:
        PackError: the pack holds no Whisper model.
        ConfigurationError: the device is a GPU, a library is missing, or the language unknown.
    """
    if settings.recognizer.device != "cpu":
        raise ConfigurationError(
            "recognizer.engine whispercpp computes on the CPU; set recognizer.device to cpu"
        )
    return WhisperCppEngine(pack, whisper_options(settings))


def open_hybrid(
    settings: Settings,
    pack: PackContents,
    drafter: PackContents,
    open_refiner: Callable[[Settings, PackContents], Recognizer],
) -> HybridRecognizer:
    """Loads a drafter of a Whisper pack and the refiner of a Paraformer pack.

    Raises:
        PackError: one of the packs cannot be used.
        ConfigurationError: a library is missing, or the language unknown.
    """
    wanted = settings.recognizer.hybrid
    return HybridRecognizer(
        WhisperCppEngine(drafter, whisper_options(settings)),
        open_refiner(settings, pack),
        (drafter.name, pack.name),
        HybridOptions(
            languages=wanted.languages,
            refine_unknown=wanted.refine_unknown,
            min_mean_log_probability=wanted.min_mean_log_probability,
            max_compression_ratio=wanted.max_compression_ratio,
            min_word_confidence=wanted.min_word_confidence,
            refine_empty=wanted.refine_empty,
            min_gap_s=wanted.min_gap_s,
            max_refined_share=wanted.max_refined_share,
            share_window_s=wanted.share_window_s,
        ),
    )


def whisper_options(settings: Settings) -> WhisperOptions:
    section = settings.recognizer.whisper
    return WhisperOptions(
        num_threads=section.num_threads,
        language=section.language,
        languages=settings.recognizer.languages,
        simplified=section.simplified,
        word_times=section.word_times,
        temperature_step=section.temperature_step,
        no_speech_threshold=section.no_speech_threshold,
        log_probability_threshold=section.log_probability_threshold,
    )
