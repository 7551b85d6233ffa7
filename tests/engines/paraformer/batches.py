"""Batches that the tests of every engine recognize."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from serve_app.core.ports import Recognizer
from serve_app.core.records import ChunkFailure, Pcm, Recognition, RecognitionOptions
from serve_app.engines.paraformer.cpu import ParaformerEngine
from tests.fakes.signals import speech_like


def recognitions(
    engine: Recognizer, batch: Sequence[Pcm], options: Sequence[RecognitionOptions] = ()
) -> list[Recognition]:
    """Returns the results of a batch after checking that none is a failure."""
    results = engine.transcribe(batch, options)
    assert len(results) == len(batch)
    found = [result for result in results if isinstance(result, Recognition)]
    assert len(found) == len(batch)
    return found


def neighbors_of_an_overflow(
    engine: ParaformerEngine, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Recognition, Recognition]]:
    """Recognizes three items, the second of which has infinite features.

    Returns:
        For the first and the third item: the result in the batch, and the result alone.
    """
    batch = [speech_like(length, length) for length in (30_000, 20_000, 10_000)]
    alone = [recognitions(engine, [pcm])[0] for pcm in batch]
    true_features = engine._features

    def features(pcm: Pcm) -> torch.Tensor:
        rows = true_features(pcm)
        return rows * torch.inf if len(pcm) == len(batch[1]) else rows

    monkeypatch.setattr(engine, "_features", features)
    first, failed, last = engine.transcribe(batch)
    assert isinstance(failed, ChunkFailure)
    assert failed.code == "non_finite_scores"
    assert isinstance(first, Recognition)
    assert isinstance(last, Recognition)
    return [(first, alone[0]), (last, alone[2])]
