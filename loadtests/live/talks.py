"""Speech with known text: the sentences of the bundled recording, from any of them on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from loadtests.harness.clips import RATE_HZ, spoken
from serve_app.cli.serve import demo_recording

_TAIL_S = 1.0


@dataclass(frozen=True, slots=True)
class Talk:
    """What one speaker says.

    Attributes:
        pcm: 16-bit mono at 16 kHz.
        text: of it.
    """

    pcm: bytes
    text: str

    @property
    def audio_s(self) -> float:
        return len(self.pcm) / 2 / RATE_HZ


class TalkLibrary:
    """Divides the bundled recording between its sentences."""

    def __init__(self) -> None:
        sentences = json.loads(
            demo_recording().path.with_suffix(".json").read_text(encoding="utf-8")
        )
        middles_ms = [
            (before["end_ms"] + after["start_ms"]) // 2 for before, after in pairwise(sentences)
        ]
        samples = spoken()
        self._parts = np.split(samples, [at_ms * RATE_HZ // 1000 for at_ms in middles_ms])
        self._texts = [str(sentence["text"]) for sentence in sentences]

    def talk(self, number: int, audio_s: float) -> Talk:
        """Returns whole sentences, from one on, as many as fit.

        Args:
            number: of the speaker, so that they do not all say the same at the same time.
            audio_s: longest audio; there is at least one sentence.
        """
        chosen: list[int] = []
        num_samples = round(_TAIL_S * RATE_HZ)
        while True:
            following = (number + len(chosen)) % len(self._parts)
            num_samples += len(self._parts[following])
            if chosen and num_samples > audio_s * RATE_HZ:
                break
            chosen.append(following)
        parts = [self._parts[one] for one in chosen]
        tail = np.zeros(round(_TAIL_S * RATE_HZ), np.int16)
        samples = np.concatenate([*parts, tail])
        return Talk(samples.tobytes(), "".join(self._texts[one] for one in chosen))

    def talks(self, number: int, audio_s: float) -> Sequence[Talk]:
        """Returns one for each speaker."""
        return [self.talk(one, audio_s) for one in range(number)]
