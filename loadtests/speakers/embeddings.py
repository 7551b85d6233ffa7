"""Embeddings of speech by CAM++ with the published weights: the service's own engine.

Those of FunASR's CAMPPlus are the same (`loadtests bench voices`), so both systems get what they
would compute themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.core.records import SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import Embeddings, SpeakerWindows, speaker_windows
from serve_app.engines.campplus import CampplusEngine
from serve_app.packs import PackStore, resolve
from serve_app.transcript.chunking import ChunkAudio

_PACK = "campplus-zh-en"


class Campplus:
    """CAM++ on this process's threads."""

    def __init__(self, store: PackStore) -> None:
        self._engine = CampplusEngine(resolve(_PACK, store))

    def embed(self, windows: Sequence[Pcm]) -> Embeddings:
        """Returns a unit vector per window of at most 1.5 s; short ones are padded."""
        found = self._engine.embed(windows)
        return np.concatenate(found) if found else np.empty((0, 192), np.float32)


def windows_of(chunks: Sequence[ChunkAudio], embedder: Campplus) -> SpeakerWindows:
    """Returns the windows of the chunks of a recording with their embeddings."""
    spans_ms = [
        (chunk.start_ms + first // SAMPLES_PER_MS, chunk.start_ms + last // SAMPLES_PER_MS)
        for chunk in chunks
        for first, last in speaker_windows(len(chunk.pcm))
    ]
    starts_ms = np.array([start_ms for start_ms, _ in spans_ms], np.int64)
    ends_ms = np.array([end_ms for _, end_ms in spans_ms], np.int64)
    return SpeakerWindows(starts_ms, ends_ms, embedder.embed([chunk.pcm for chunk in chunks]))
