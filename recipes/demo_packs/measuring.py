"""Measures a recognizer on held-out sentences and on clips without speech."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from funasr.models.paraformer.model import Paraformer

from recipes.demo_packs.augment import (
    add_noise,
    draw_wordless,
    join_with_gaps,
    pad_with_silence,
    trim_edges,
)
from recipes.demo_packs.features import (
    ROW_S,
    Matrix,
    log_mel,
    normalize,
    row_centers_s,
    stack_frames,
)
from recipes.demo_packs.noises import MUSIC, NOISES, Samples, make_music, make_noise, scale_to_rms
from recipes.demo_packs.recognizer import decode
from recipes.demo_packs.scores import error_rate
from recipes.demo_packs.sentences import held_out_sentences
from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ, VOICES, Speech, Voice, shared_synthesizer

_LONGEST_CHARACTER_S = 0.3


@dataclass(frozen=True, slots=True)
class Heard:
    """What was decoded: the characters, and every fire in seconds, the end's too."""

    characters: str
    fires_s: npt.NDArray[np.float64]


class Listener:
    """A recognizer with its features and vocabulary, one utterance at a time."""

    def __init__(self, model: Paraformer, cmvn: Matrix, tokens: list[str]) -> None:
        """Wrap a model in evaluation mode."""
        self._model = model.eval()
        self._cmvn = cmvn
        self._tokens = tokens

    def listen(self, samples: Samples) -> Heard:
        """Decode 16 kHz samples."""
        rows = normalize(stack_frames(log_mel(samples)), self._cmvn)
        ids, fires = decode(self._model, rows.astype(np.float32))
        centers_s = row_centers_s(1)[0] + np.array(fires, np.float64) * ROW_S
        return Heard("".join(self._tokens[i] for i in ids), centers_s)


def held_out_speech(count: int, seed: int) -> Iterator[tuple[str, Speech]]:
    """Yield (voice, speech) of held-out sentences, every voice in turn."""
    rng = random.Random(f"voices {seed}")
    for index, sentence in zip(range(count), held_out_sentences(seed), strict=False):
        variant = VOICES[index % len(VOICES)]
        voice = Voice(variant, rng.randint(150, 210), rng.randint(40, 60))
        speech = trim_edges(shared_synthesizer().speak(sentence, voice))
        yield variant, pad_with_silence(speech, rng.uniform(0, 0.4), rng.uniform(0, 0.4))


def speech_errors(listener: Listener, count: int, seed: int) -> dict[str, float]:
    """Error rates in percent: clean, the worst voice, noise, joined sentences."""
    rng = np.random.default_rng(seed)
    clean: dict[str, list[tuple[str, str]]] = {voice: [] for voice in VOICES}
    noisy: list[tuple[str, str]] = []
    spoken: list[Speech] = []
    errors_ms: list[float] = []
    centers_ms: list[float] = []
    for variant, speech in held_out_speech(count, seed):
        heard = listener.listen(speech.samples)
        clean[variant].append((speech.characters, heard.characters))
        if heard.characters == speech.characters and len(heard.fires_s) == len(speech.spans) + 1:
            errors_ms.extend(start_errors_ms(heard, speech))
            centers_ms.extend(center_errors_ms(heard, speech))
        noise = make_noise(NOISES[len(spoken) % 4], len(speech.samples), rng)
        loud = np.clip(add_noise(speech.samples, noise, 15.0), -1.0, 1.0)
        noisy.append((speech.characters, listener.listen(loud).characters))
        spoken.append(speech)
    joined = [join_with_gaps(spoken[i : i + 3], [0.8, 0.8]) for i in range(0, count - 2, 3)]
    every = [pair for pairs in clean.values() for pair in pairs]
    return {
        "cer_clean": error_rate(every),
        "cer_worst_voice": max(error_rate(pairs) for pairs in clean.values()),
        "exact_clean": 100.0 * sum(a == b for a, b in every) / max(1, len(every)),
        "cer_noise_15_db": error_rate(noisy),
        "cer_joined": error_rate(
            (s.characters, listener.listen(s.samples).characters) for s in joined
        ),
        "start_error_ms": mean(np.abs(errors_ms)),
        "start_bias_ms": mean(np.array(errors_ms)),
        "center_error_ms": mean(np.abs(centers_ms)),
    }


def mean(values: npt.NDArray[np.float64]) -> float:
    """The mean, or -1 without values, since JSON has no NaN."""
    return float(np.mean(values)) if len(values) else -1.0


def start_errors_ms(heard: Heard, speech: Speech) -> list[float]:
    """Each character's start, a row and a half before its fire, against the truth."""
    return [float(e) for e in (_starts_s(heard)[:-1] - speech.spans[:, 0]) * 1_000.0]


def center_errors_ms(heard: Heard, speech: Speech) -> list[float]:
    """Each character's center, half way to the next start, against the truth.

    A character lasts 0.3 s at most here, or a pause would move the center of the
    character before it; FunASR's own bound is twelve rows.
    """
    starts_s = _starts_s(heard)
    centers_s = starts_s[:-1] + np.minimum(np.diff(starts_s), _LONGEST_CHARACTER_S) / 2
    return [float(e) for e in (centers_s - speech.spans.mean(axis=1)) * 1_000.0]


def _starts_s(heard: Heard) -> npt.NDArray[np.float64]:
    return np.asarray(heard.fires_s - row_centers_s(1)[0] - 1.5 * ROW_S)


def wordless_characters(listener: Listener, count: int, seed: int) -> dict[str, int]:
    """Characters said on `count` clips each of silence, noise, music and a mixture."""
    rng = np.random.default_rng(seed + 1)

    def said(kind: str, index: int) -> int:
        num_samples = int(rng.uniform(0.3, 10.0) * SAMPLE_RATE_HZ)
        level = 10.0 ** (rng.uniform(-70, -10) / 20.0)
        if kind == "silence":
            samples = np.zeros(num_samples, np.float32)
        elif kind == "noise":
            name = NOISES[index % len(NOISES)]
            samples = scale_to_rms(make_noise(name, num_samples, rng), level)
        elif kind == "music":
            name = MUSIC[index % len(MUSIC)]
            samples = scale_to_rms(make_music(name, num_samples, rng), level)
        else:
            samples = draw_wordless(rng, num_samples)
        return len(listener.listen(np.clip(samples, -1, 1)).characters)

    kinds = ("silence", "noise", "music", "mixture")
    return {f"said_on_{kind}": sum(said(kind, i) for i in range(count)) for kind in kinds}
