"""From samples to windows with embeddings: the settings' VAD, then CAM++."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import soundfile

from loadtests.speakers.embeddings import Campplus
from serve_app.core.records import SAMPLE_RATE_HZ, SAMPLES_PER_MS, Pcm
from serve_app.core.speakers import SpeakerTurn, SpeakerWindows
from serve_app.inference.loading import load_vad, segmentation_options
from serve_app.settings import Settings
from serve_app.transcript.chunking import ChunkAudio
from serve_app.transcript.segmentation import Segmentation


class Listener:
    """Finds speech and embeds it; windows of recordings with a name are kept in a directory."""

    def __init__(self, embedder: Campplus, cache: Path) -> None:
        settings = Settings()
        self._options = segmentation_options(settings)
        self._vad = load_vad(settings).engine
        self._embedder = embedder
        self._cache = cache / "windows"

    def windows(self, name: str, pcm: Pcm) -> SpeakerWindows:
        """Returns the windows of the speech that the VAD finds."""
        path = self._cache / f"{name}.npz"
        if (kept := _kept(path)) is not None:
            return kept
        file = io.BytesIO()
        soundfile.write(file, pcm, SAMPLE_RATE_HZ, format="FLAC")
        audio = np.frombuffer(file.getvalue(), np.uint8)
        steps = Segmentation(audio, self._vad, self._options).steps()
        found = self._embedder.windows([chunk for chunks in steps for chunk in chunks])
        self._cache.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(
            part,
            start=found.start_ms,
            end=found.end_ms,
            embeddings=found.embeddings,
            pauses=found.pauses_ms,
        )
        part.replace(path)
        return found

    def windows_within(self, pcm: Pcm, turns: Sequence[SpeakerTurn]) -> SpeakerWindows:
        """Returns the windows of the ranges in which anybody speaks by the reference."""
        ranges: list[list[int]] = []
        for turn in sorted(turns, key=lambda one: one.start_ms):
            if ranges and turn.start_ms <= ranges[-1][1]:
                ranges[-1][1] = max(ranges[-1][1], turn.end_ms)
            else:
                ranges.append([turn.start_ms, turn.end_ms])
        chunks = [
            ChunkAudio(start, end, pcm[start * SAMPLES_PER_MS : end * SAMPLES_PER_MS])
            for start, end in ranges
        ]
        return self._embedder.windows(chunks)


def _kept(path: Path) -> SpeakerWindows | None:
    try:
        with np.load(path) as kept:
            times_ms = kept["start"], kept["end"]
            return SpeakerWindows(*times_ms, kept["embeddings"], kept["pauses"])
    except (FileNotFoundError, BadZipFile, KeyError):
        return None
