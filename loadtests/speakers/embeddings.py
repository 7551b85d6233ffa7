"""Embeddings of speech by FunASR's CAMPPlus with the published weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from loadtests.bench.peers import PeerMissing, as_float
from loadtests.speakers.wheels import CAMPPLUS, fetched
from serve_app.core.records import SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import WINDOW_MS, Embeddings, SpeakerWindows, speaker_windows
from serve_app.packs import PackStore
from serve_app.transcript.chunking import ChunkAudio

_BATCH_SIZE = 32


class Campplus:
    """FunASR's CAMPPlus on one thread."""

    def __init__(self, store: PackStore) -> None:
        try:
            from funasr.models.campplus.model import CAMPPlus
            from funasr.models.campplus.utils import extract_feature
        except ImportError as error:
            raise PeerMissing(f"FunASR is not installed: {error}") from error
        weights = torch.load(
            fetched(CAMPPLUS, store) / "campplus_cn_en_common.pt", weights_only=True
        )
        self._network: Any = CAMPPlus().eval()
        self._network.load_state_dict(weights)
        self._features: Any = extract_feature

    @torch.inference_mode()
    def embed(self, windows: Sequence[Pcm]) -> Embeddings:
        """Returns a unit vector per window; a short one is padded with silence, as FunASR does."""
        found: list[Embeddings] = []
        for first in range(0, len(windows), _BATCH_SIZE):
            audio = [torch.from_numpy(_padded(pcm)) for pcm in windows[first : first + _BATCH_SIZE]]
            features, _, _ = self._features(audio)
            vectors = self._network(features)
            found.append(torch.nn.functional.normalize(vectors, dim=1).numpy())
        return np.concatenate(found) if found else np.empty((0, 192), np.float32)


def windows_of(chunks: Sequence[ChunkAudio], embed: Campplus) -> SpeakerWindows:
    """Returns the windows of the chunks of a recording with their embeddings."""
    spans = [
        (chunk.start_ms + first // SAMPLES_PER_MS, chunk.pcm[first:last])
        for chunk in chunks
        for first, last in speaker_windows(len(chunk.pcm))
    ]
    starts_ms = np.array([start_ms for start_ms, _ in spans], np.int64)
    lengths_ms = np.array([len(pcm) // SAMPLES_PER_MS for _, pcm in spans], np.int64)
    return SpeakerWindows(starts_ms, starts_ms + lengths_ms, embed.embed([pcm for _, pcm in spans]))


def _padded(pcm: Pcm) -> npt.NDArray[np.float32]:
    return np.pad(as_float(pcm), (0, max(0, WINDOW_MS * SAMPLES_PER_MS - len(pcm))))
