"""A typed binding of whisper.cpp: one model, one call at a time.

It uses the C-style API of pywhispercpp, because `Model` returns whole segments and token data is
needed here.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from serve_app.core.errors import ConfigurationError, PackCorrupt
from serve_app.core.languages import GUESSED
from serve_app.core.records import SAMPLE_RATE_HZ
from serve_app.engines.whisper.text import WhisperToken
from serve_app.packs.ggml import WhisperShape, read_whisper_shape

WordTimes = Literal["attention", "even"]

_LOG = logging.getLogger(__name__)
_LEVELS = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_ERROR_LEVEL = 4
_ERRORS_KEPT = 5
_MS_PER_TICK = 10
# whisper.cpp refuses audio under 100 ms. Padding with silence up to here changes nothing, since
# every window is padded to 30 s anyway.
_MIN_SAMPLES = 2 * SAMPLE_RATE_HZ
# The alignment heads are published by model, which its number of layers identifies.
_HEADS_BY_LAYERS = {4: "TINY", 6: "BASE", 12: "SMALL", 24: "MEDIUM"}
_LARGE_V3_TOKENS = 51_866
# Entries of a multilingual vocabulary other than languages: 51,865 entries have 99 languages, and
# large-v3 adds Cantonese (whisper.cpp, whisper_vocab::num_languages).
_TOKENS_WITHOUT_LANGUAGES = 51_766
_LARGE_LAYERS, _TURBO_TEXT_LAYERS = 32, 4
_ONLY_LANGUAGE = "en"  # of the models that are not multilingual


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How whisper.cpp decodes; see `WhisperOptions`."""

    num_threads: int
    word_times: WordTimes
    temperature_step: float
    no_speech_threshold: float
    log_probability_threshold: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """The result of whisper.cpp for one chunk.

    Attributes:
        tokens: without special tokens; empty if there is no speech.
        language: code of the given or detected language.
    """

    tokens: list[WhisperToken]
    language: str


class WhisperRefused(Exception):
    """whisper.cpp failed on a chunk; the argument is its return code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)


class WhisperModel:
    """A loaded model file, on the CPU.

    Args:
        path: the ggml file.
        pack: its pack's name, for messages.
        options: for all calls.

    Raises:
        ConfigurationError: pywhispercpp is not installed.
        PackCorrupt: whisper.cpp cannot load the file.
    """

    def __init__(self, path: Path, pack: str, options: DecodingOptions) -> None:
        self._library = _library()
        self._options = options
        self._lock = threading.Lock()
        shape = read_whisper_shape(path, pack)
        self._num_languages = shape.num_tokens - _TOKENS_WITHOUT_LANGUAGES
        self._multilingual = shape.multilingual
        heads = _alignment_heads(shape) if options.word_times == "attention" else None
        self._has_attention_times = heads is not None
        self._context = self._open(path, pack, heads)
        self._end_of_text = int(self._library.whisper_token_eot(self._context))

    @property
    def has_attention_times(self) -> bool:
        """Whether times come from attention; otherwise tokens are spread evenly."""
        return self._has_attention_times

    def knows(self, language: str) -> bool:
        """Whether the model supports a language; True for `auto`.

        An English-only model would ignore other codes and write English.
        """
        if language == GUESSED:
            return True
        if not self._multilingual:
            return language == _ONLY_LANGUAGE
        number = int(self._library.whisper_lang_id(language))
        return 0 <= number < self._num_languages

    def decode(self, samples: npt.NDArray[np.float32], language: str) -> Decoded:
        """Decodes samples. Calls on several threads run one at a time.

        Args:
            samples: within [-1, 1], shape [n].
            language: one that the model `knows`; detection takes one more encoder pass.

        Raises:
            WhisperRefused: whisper.cpp failed.
        """
        if len(samples) < _MIN_SAMPLES:
            samples = np.pad(samples, (0, _MIN_SAMPLES - len(samples)))
        samples = np.ascontiguousarray(samples)
        with self._lock:
            code = self._library.whisper_full(
                self._context, self._parameters(language), samples, len(samples)
            )
            if code != 0:
                raise WhisperRefused(code)
            language_id = self._library.whisper_full_lang_id(self._context)
            return Decoded(self._tokens(), str(self._library.whisper_lang_str(language_id)))

    def _tokens(self) -> list[WhisperToken]:
        library, context = self._library, self._context
        tokens = []
        for segment in range(library.whisper_full_n_segments(context)):
            for number in range(library.whisper_full_n_tokens(context, segment)):
                token = library.whisper_full_get_token_data(context, segment, number)
                if token.id >= self._end_of_text:
                    continue
                ticks = (token.t0 + token.t1) / 2
                if self._has_attention_times and token.t_dtw >= 0:
                    ticks = token.t_dtw
                tokens.append(
                    WhisperToken(
                        text=library.whisper_token_to_bytes(context, token.id),
                        probability=float(token.p),
                        log_probability=float(token.plog),
                        center_ms=float(ticks * _MS_PER_TICK),
                    )
                )
        return tokens

    def _parameters(self, language: str) -> object:
        options = self._options
        strategy = self._library.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY
        parameters = self._library.whisper_full_default_params(strategy)
        parameters.n_threads = options.num_threads
        # An English-only model has no language tokens.
        parameters.language = language if self._multilingual else _ONLY_LANGUAGE
        parameters.no_context = True
        parameters.temperature = 0.0
        parameters.temperature_inc = options.temperature_step
        parameters.greedy = {"best_of": 1}
        parameters.no_speech_thold = options.no_speech_threshold
        parameters.logprob_thold = options.log_probability_threshold
        parameters.token_timestamps = True
        parameters.print_progress = False
        parameters.print_realtime = False
        parameters.print_timestamps = False
        return parameters

    def _open(self, path: Path, pack: str, heads: str | None) -> object:
        parameters = self._library.whisper_context_default_params()
        parameters.use_gpu = False
        if heads is not None:
            presets = self._library.whisper_alignment_heads_preset
            parameters.dtw_token_timestamps = True
            parameters.dtw_aheads_preset = getattr(presets, f"WHISPER_AHEADS_{heads}")
            # Flash attention does not store the weights from which times are read.
            parameters.flash_attn = False
        _ERRORS.clear()
        context = self._library.whisper_init_from_file_with_params(str(path), parameters)
        if _ERRORS:
            # The returned context is then empty; only the log reports it.
            problem = f"whisper.cpp cannot load {path.name}: {'; '.join(_ERRORS)}"
            raise PackCorrupt(pack, problem, f"Run `paraserve models verify {pack}`")
        return context


def _alignment_heads(shape: WhisperShape) -> str | None:
    """Returns the preset of the model's alignment heads; None if none is published."""
    if shape.audio_layers == _LARGE_LAYERS:
        if shape.text_layers == _TURBO_TEXT_LAYERS:
            return "LARGE_V3_TURBO"
        if shape.text_layers != _LARGE_LAYERS:
            return None
        return "LARGE_V3" if shape.num_tokens >= _LARGE_V3_TOKENS else "LARGE_V2"
    if shape.text_layers != shape.audio_layers or shape.audio_layers not in _HEADS_BY_LAYERS:
        return None
    return _HEADS_BY_LAYERS[shape.audio_layers] + ("" if shape.multilingual else "_EN")


def _library() -> ModuleType:
    try:
        library = importlib.import_module("_pywhispercpp")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "this engine needs pywhispercpp, which is not installed; run: "
            "pip install 'paraserve[whisper]'"
        ) from error
    library.whisper_log_set(_log)
    # The library keeps the callback after the interpreter has shut down, and releasing it then
    # ends the process with a fatal error.
    atexit.unregister(_forget_log)
    atexit.register(_forget_log)
    return library


def _forget_log() -> None:
    importlib.import_module("_pywhispercpp").whisper_log_set(None)


_ERRORS: list[str] = []
"""Errors that whisper.cpp has logged since the last load of a model began."""


def _log(level: int, text: str) -> None:
    line = text.strip()
    if level == _ERROR_LEVEL:
        _ERRORS.append(line)
        del _ERRORS[:-_ERRORS_KEPT]
    if line:
        _LOG.log(_LEVELS.get(level, logging.DEBUG), "whisper.cpp: %s", line)
