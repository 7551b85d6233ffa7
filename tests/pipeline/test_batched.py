"""A shared recogniser: a chunk that breaks the engine fails alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from serve_app.core.chunks import Chunk, ChunkFailure, Pcm, Recognition
from serve_app.core.origin import Origin
from serve_app.pipeline.batched import BatchedRecognizer
from tests.fakes.engines import FakeRecognizer


class BreakableRecognizer(FakeRecognizer):
    def transcribe(self, batch: Sequence[Pcm]) -> list[Recognition | ChunkFailure]:
        if any(pcm.any() for pcm in batch):
            raise MemoryError
        return super().transcribe(batch)


def chunk(index: int, level: int) -> Chunk:
    return Chunk(Origin("request"), index, 0, np.full(3200, level, np.int16))


async def test_chunk_that_breaks_the_engine_fails_alone() -> None:
    recognizer = BatchedRecognizer(BreakableRecognizer(), 1000, logging.getLogger("tests"))
    results = await recognizer.transcribe([chunk(0, 0), chunk(1, 9), chunk(2, 0)])
    await recognizer.close()
    assert results[1] == ChunkFailure("engine_error", "MemoryError")
    for result in (results[0], results[2]):
        assert isinstance(result, Recognition)
        assert len(result.tokens) == 2
