"""A pack whose hotwords have an effect, and requests that have some."""

from __future__ import annotations

from serve_app.core.records import Hotword, RecognitionOptions
from tests.fakes.tiny_packs import TinyParaformer

TINY_SEACO = TinyParaformer("SeacoParaformer", vocabulary_size=60, num_hotword_blocks=6, seed=2)

LONG_LIST = tuple(chr(ord("一") + index) for index in range(56))
"""More words than an utterance minds."""


def recognition_options_of(*words: str, weight: float = 1.0) -> RecognitionOptions:
    return RecognitionOptions(hotwords=tuple(Hotword(word, weight) for word in words))
