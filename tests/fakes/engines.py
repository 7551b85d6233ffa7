"""Engines whose answers follow from their input by a simple rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve_app.core.records import (
    AS_DEPLOYED,
    ChunkFailure,
    Pcm,
    Recognition,
    RecognitionOptions,
    SpeechDetection,
    SpeechSegment,
    Token,
)


class FakePunctuator:
    """Ends a sentence after 句 and puts a comma after 五."""

    max_in_flight = 1
    is_reentrant = False

    def label(self, batch: Sequence[Sequence[str]]) -> list[list[str]]:
        marks = {"句": "。", "五": "，"}
        return [[marks.get(word, "") for word in words] for words in batch]


class FakeRecognizer:
    """Says, for each item, how many whole tenths of a second it heard."""

    max_in_flight = 1
    is_reentrant = False

    def transcribe(
        self, batch: Sequence[Pcm], recognition_options: Sequence[RecognitionOptions] = ()
    ) -> list[Recognition | ChunkFailure]:
        return [
            Recognition(
                tuple(Token("一", i * 100, (i + 1) * 100, 0.9) for i in range(len(pcm) // 1600))
            )
            for pcm in batch
        ]

    def cost(self, num_samples: int) -> int:
        return num_samples // 960


class FakeVad:
    """Hears one segment per stretch of samples that are not zero, in 10 ms frames."""

    def __init__(self) -> None:
        self.detections: list[SpeechDetection] = []

    def open(self, detection: SpeechDetection = AS_DEPLOYED) -> FakeVadStream:
        self.detections.append(detection)
        return FakeVadStream()


class FakeVadStream:
    def __init__(self) -> None:
        self._rest = np.zeros(0, np.int16)
        self._now_ms = 0
        self._since_ms: int | None = None

    @property
    def keep_from_ms(self) -> int:
        return self._now_ms if self._since_ms is None else self._since_ms

    @property
    def open_since_ms(self) -> int | None:
        return self._since_ms

    def push(self, pcm: Pcm) -> list[SpeechSegment]:
        samples = np.concatenate([self._rest, pcm])
        found: list[SpeechSegment] = []
        num_frames = len(samples) // 160
        for frame in samples[: num_frames * 160].reshape(num_frames, 160):
            if frame.any() and self._since_ms is None:
                self._since_ms = self._now_ms
            elif not frame.any() and self._since_ms is not None:
                found.append(SpeechSegment(self._since_ms, self._now_ms))
                self._since_ms = None
            self._now_ms += 10
        self._rest = samples[num_frames * 160 :]
        return found

    def finish(self) -> list[SpeechSegment]:
        if self._since_ms is None:
            return []
        return [SpeechSegment(self._since_ms, self._now_ms)]
