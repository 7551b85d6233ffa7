"""The two real recordings as chunks, and what Whisper base drafted for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from serve_app.core.records import SAMPLES_PER_MS, ChunkFailure, Pcm, RecognitionOptions
from serve_app.engines.whisper.engine import Draft
from tests.published import PUBLISHED_SEGMENTS_MS

ASR_EXAMPLE_TEXT = "甚至出现交易几乎停滞的情况"


def chunks_of(asr_example: Path, vad_example: Path) -> list[Pcm]:
    """The short recording as it is, then the long one's segments."""
    short, _ = soundfile.read(asr_example, dtype="int16")
    long, _ = soundfile.read(vad_example, dtype="int16")
    return [short] + [
        long[start_ms * SAMPLES_PER_MS : end_ms * SAMPLES_PER_MS]
        for start_ms, end_ms in PUBLISHED_SEGMENTS_MS
    ]


@dataclass(frozen=True)
class RecordedDrafts:
    """Chunks and their drafts; drafts them again from memory."""

    chunks: Sequence[Pcm]
    drafts: Sequence[Draft | ChunkFailure]
    is_reentrant: bool = False

    def draft(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Draft | ChunkFailure]:
        by_samples = {
            chunk.tobytes(): draft for chunk, draft in zip(self.chunks, self.drafts, strict=True)
        }
        return [by_samples[pcm.tobytes()] for pcm in batch]

    def language_of(self, recognition_options: RecognitionOptions) -> str | None:
        return recognition_options.language or "zh"

    def cost(self, num_samples: int) -> int:
        return num_samples
