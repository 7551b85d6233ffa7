from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from serve_app.core.records import (
    NO_OPTIONS,
    ChunkFailure,
    Hotword,
    Pcm,
    Recognition,
    RecognitionOptions,
)
from serve_app.engines.paraformer.decoded import DecodingEngine
from serve_app.engines.paraformer.detokenize import Decoded, overflow_failure
from serve_app.packs.pack import PackContents

NAMES = ("<blank>", "<s>", "</s>", "一", "丁")
SPEECH = np.ones(1600, np.int16)
SILENCE = np.zeros(1600, np.int16)
EMPTY = np.zeros(0, np.int16)


class ScriptedEngine(DecodingEngine):
    """Decodes each item to one token; an item of twos overflows."""

    def __init__(self) -> None:
        self._pack = cast(PackContents, SimpleNamespace(name="pack", tokens=NAMES, path=Path()))
        self.calls: list[tuple[list[Pcm], list[RecognitionOptions]]] = []

    def cost(self, num_samples: int) -> int:
        return num_samples // 960

    def _decode_audible(
        self, batch: list[Pcm], recognition_options: list[RecognitionOptions]
    ) -> list[Decoded | ChunkFailure]:
        self.calls.append((batch, recognition_options))
        return [overflow_failure() if pcm[0] == 2 else _decoded(1, 3, 2) for pcm in batch]


def _decoded(*ids: int) -> Decoded:
    return Decoded(np.array(ids, np.int32), np.full(len(ids), 0.5, np.float32), None)


def texts(result: Any) -> list[str]:
    assert isinstance(result, Recognition)
    return [token.text for token in result.tokens]


def test_network_sees_neither_empty_nor_silent_items() -> None:
    engine = ScriptedEngine()
    results = engine.transcribe([SILENCE, SPEECH, EMPTY])
    assert [texts(result) for result in results] == [[], ["一"], []]
    ((batch, options),) = engine.calls
    assert batch[0] is SPEECH
    assert options == [NO_OPTIONS]


def test_network_does_not_run_for_a_batch_without_sound() -> None:
    engine = ScriptedEngine()
    assert engine.token_ids([SILENCE, EMPTY]) == [[], []]
    assert engine.calls == []


def test_options_stay_with_their_item() -> None:
    engine = ScriptedEngine()
    options = [RecognitionOptions(hotwords=(Hotword(word),)) for word in ("一", "丁")]
    engine.transcribe([SILENCE, SPEECH], options)
    assert engine.calls[0][1] == [options[1]]


def test_item_that_overflows_fails_alone() -> None:
    engine = ScriptedEngine()
    first, second = engine.transcribe([SPEECH, 2 * SPEECH])
    assert texts(first) == ["一"]
    assert isinstance(second, ChunkFailure)
    assert engine.token_ids([SPEECH, 2 * SPEECH]) == [[3], []]
