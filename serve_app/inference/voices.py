"""Speaker labels in one process: embeds chunks and tells the speakers of a recording apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serve_app.core.pcm import SAMPLES_PER_MS
from serve_app.core.ports import SpeakerEmbedder
from serve_app.core.records import Chunk
from serve_app.core.speakers import (
    Diarization,
    Embeddings,
    SpeakerOptions,
    SpeakerWindows,
    speaker_windows,
)
from serve_app.speakers.diarization import diarize
from serve_app.speakers.pauses import pauses_in
from serve_app.speakers.transcripts import RecordingVoices
from serve_app.transcript.chunking import ChunkAudio


def windows_of_chunks(
    chunks: Sequence[Chunk | ChunkAudio], embeddings: Sequence[Embeddings]
) -> list[SpeakerWindows]:
    """Returns the windows of each chunk, in the recording's time, with their embeddings."""
    return [_windows_of(chunk, rows) for chunk, rows in zip(chunks, embeddings, strict=True)]


def _windows_of(chunk: Chunk | ChunkAudio, embeddings: Embeddings) -> SpeakerWindows:
    ranges = np.array(speaker_windows(len(chunk.pcm)), np.int64).reshape(-1, 2)
    times_ms = chunk.start_ms + ranges // SAMPLES_PER_MS
    pauses_ms = chunk.start_ms + pauses_in(chunk.pcm)
    return SpeakerWindows(times_ms[:, 0], times_ms[:, 1], embeddings, pauses_ms)


def mean_voices(embeddings: Sequence[Embeddings]) -> Embeddings:
    """Returns one embedding for each item: the mean of its windows, of length 1."""
    means = np.stack([rows.mean(axis=0) for rows in embeddings])
    voices: Embeddings = means / np.linalg.norm(means, axis=1, keepdims=True)
    return voices


class LocalVoices:
    """Runs an embedder and the diarization on a thread of their own.

    Args:
        engine: embeds.
    """

    def __init__(self, engine: SpeakerEmbedder) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="speakers")

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    async def embed(self, chunks: list[Chunk]) -> list[SpeakerWindows | None]:
        """Returns the windows of each chunk."""
        pcm = [chunk.pcm for chunk in chunks]
        loop = asyncio.get_running_loop()
        embeddings = await loop.run_in_executor(self._thread, self._engine.embed, pcm)
        return [*windows_of_chunks(chunks, embeddings)]

    async def diarize(self, voices: RecordingVoices, options: SpeakerOptions) -> Diarization:
        """Returns who spoke when."""
        if not voices:
            return Diarization()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._diarize, voices, options)

    def _diarize(self, voices: RecordingVoices, options: SpeakerOptions) -> Diarization:
        known: Embeddings | None = None
        if options.known:
            known = mean_voices(self._engine.embed([speaker.pcm for speaker in options.known]))
        return voices.in_recording_time(diarize(voices.windows(), options, known))
