"""Compares a pack with its export on the same clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soundfile

from serve_app.core.ports import Recognizer
from serve_app.core.records import SAMPLES_PER_MS, ChunkFailure, Pcm, Recognition
from serve_app.engines.paraformer.cpu import ParaformerEngine
from serve_app.engines.paraformer.onnx import ParaformerOnnxEngine
from serve_app.packs import PackContents
from serve_app.packs.integrity import BUILTIN_DIRECTORY
from serve_app.transcript.cer import character_error_rate


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """Differences between a pack and its export.

    Attributes:
        num_clips: number of clips.
        num_equal: clips with the same tokens.
        num_characters: characters in the text of the original.
        error_rate: character error rate against that text.
        most_shifted_ms: largest difference of a time, in clips with the same tokens.
    """

    num_clips: int
    num_equal: int
    num_characters: int
    error_rate: float
    most_shifted_ms: int

    @property
    def is_equal(self) -> bool:
        return self.num_equal == self.num_clips

    def __str__(self) -> str:
        compared = f"{self.num_clips} clips, {self.num_characters} characters"
        if self.is_equal:
            return f"text equal ({compared}; times differ by {self.most_shifted_ms} ms at most)"
        return (
            f"CER {self.error_rate:.2%} against the original "
            f"({compared}; {self.num_equal} clips with equal text)"
        )


def check_export(original: PackContents, exported: PackContents) -> ExportCheck:
    """Compares the two engines on the bundled recording.

    Raises:
        PackError: one of the packs cannot be run.
    """
    clips = demo_clips()
    return compare(ParaformerEngine(original), ParaformerOnnxEngine(exported), clips)


def compare(original: Recognizer, other: Recognizer, clips: Sequence[Pcm]) -> ExportCheck:
    """Compares two recognizers; the first one is the reference."""
    pairs = list(
        zip(_transcribe_each(original, clips), _transcribe_each(other, clips), strict=True)
    )
    texts = [["".join(token.text for token in one.tokens) for one in pair] for pair in pairs]
    equal = [pair for pair, (said, found) in zip(pairs, texts, strict=True) if said == found]
    shifts = [
        max(abs(token.start_ms - twin.start_ms), abs(token.end_ms - twin.end_ms))
        for one, two in equal
        for token, twin in zip(one.tokens, two.tokens, strict=True)
    ]
    said = "".join(first for first, _ in texts)
    return ExportCheck(
        num_clips=len(clips),
        num_equal=len(equal),
        num_characters=len(said),
        error_rate=character_error_rate(said, "".join(second for _, second in texts)),
        most_shifted_ms=max(shifts, default=0),
    )


def demo_clips() -> list[Pcm]:
    """Returns the sentences of the bundled recording."""
    samples = BUILTIN_DIRECTORY / "samples"
    pcm, _ = soundfile.read(samples / "demo.flac", dtype="int16")
    lines = json.loads((samples / "demo.json").read_text("utf-8"))
    return [
        np.asarray(pcm[line["start_ms"] * SAMPLES_PER_MS : line["end_ms"] * SAMPLES_PER_MS])
        for line in lines
    ]


def _transcribe_each(engine: Recognizer, clips: Sequence[Pcm]) -> list[Recognition]:
    """Transcribes clips one by one; a failed clip has no tokens."""
    found = [engine.transcribe([clip])[0] for clip in clips]
    return [Recognition(()) if isinstance(one, ChunkFailure) else one for one in found]
