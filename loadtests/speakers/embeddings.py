"""Embeddings of speech by CAM++ with the published weights: the service's own engine.

Those of FunASR's CAMPPlus are the same (`loadtests bench voices`), so both systems get what they
would compute themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.core.records import Pcm
from serve_app.core.speakers import Embeddings, SpeakerWindows, join_windows
from serve_app.engines.campplus import CampplusEngine
from serve_app.inference.voices import windows_of_chunks
from serve_app.packs import PackStore, resolve
from serve_app.transcript.chunking import ChunkAudio

_PACK = "campplus-zh-en"


class Campplus:
    """CAM++ on this process's threads.

    Args:
        store: of its pack.
        dtype: see the setting `speaker_embedder.dtype`.
    """

    def __init__(self, store: PackStore, dtype: str = "float32") -> None:
        self._engine = CampplusEngine(resolve(_PACK, store), dtype=dtype)

    def embed(self, windows: Sequence[Pcm]) -> Embeddings:
        """Returns a unit vector per window of at most 1.5 s; short ones are padded."""
        found = self._engine.embed(windows)
        return np.concatenate(found) if found else np.empty((0, 192), np.float32)

    def windows(self, chunks: Sequence[ChunkAudio]) -> SpeakerWindows:
        """Returns the windows of the chunks of a recording with their embeddings."""
        if not chunks:
            nowhere = np.empty(0, np.int64)
            return SpeakerWindows(nowhere, nowhere, self.embed([]))
        embeddings = self._engine.embed([chunk.pcm for chunk in chunks])
        return join_windows(windows_of_chunks(chunks, embeddings))
