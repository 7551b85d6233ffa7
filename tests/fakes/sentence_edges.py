"""When the sentences of the demo recording really begin and end, by the signal alone.

Measured apart from the code under test: energy in 10 ms every 5 ms, against four times the
5th percentile of the whole recording.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soundfile

from serve_app.core.records import SAMPLES_PER_MS, Pcm, Token
from serve_app.packs.integrity import BUILTIN_DIRECTORY

DEMO_FLAC = BUILTIN_DIRECTORY / "samples" / "demo.flac"
_STEP_MS = 5
_WINDOW_MS = 10
_SEARCHED_MS = 200


@dataclass(frozen=True, slots=True)
class SpokenSentence:
    """From the first sound of a sentence to its last, in ms."""

    text: str
    start_ms: int
    end_ms: int


def demo_recording() -> Pcm:
    samples, _ = soundfile.read(DEMO_FLAC, dtype="int16")
    return np.asarray(samples)


def spoken_sentences(pcm: Pcm) -> list[SpokenSentence]:
    active = _active_steps(pcm)
    found: list[SpokenSentence] = []
    for line in json.loads(DEMO_FLAC.with_suffix(".json").read_text("utf-8")):
        first = (line["start_ms"] - _SEARCHED_MS) // _STEP_MS
        last = (line["end_ms"] + _SEARCHED_MS) // _STEP_MS
        start_ms, end_ms = _edges_ms(active[first:last])
        found.append(
            SpokenSentence(line["text"], start_ms + first * _STEP_MS, end_ms + first * _STEP_MS)
        )
    return found


def sound_edges(pcm: Pcm) -> tuple[int, int]:
    """Where the first sound of a recording begins and the last one ends, in ms."""
    return _edges_ms(_active_steps(pcm))


def _active_steps(pcm: Pcm) -> npt.NDArray[np.bool_]:
    step, window = _STEP_MS * SAMPLES_PER_MS, _WINDOW_MS * SAMPLES_PER_MS
    squares = np.square(pcm.astype(np.float64))
    starts = range(0, len(pcm) - window, step)
    levels = np.sqrt([squares[start : start + window].mean() for start in starts])
    return np.asarray(levels > 4 * np.percentile(levels, 5))


def _edges_ms(active: npt.NDArray[np.bool_]) -> tuple[int, int]:
    steps = np.flatnonzero(active)
    return int(steps[0]) * _STEP_MS, int(steps[-1]) * _STEP_MS + _WINDOW_MS


def edge_errors_ms(words: Sequence[Token], sentences: Sequence[SpokenSentence]) -> list[int]:
    """By how much the first word of each sentence starts late, and the last one ends late.

    A word belongs to the sentence that its middle is nearest to.
    """
    errors: list[int] = []
    for sentence in sentences:
        mine = [word for word in words if _nearest(word, sentences) is sentence]
        errors += [mine[0].start_ms - sentence.start_ms, mine[-1].end_ms - sentence.end_ms]
    return errors


def assert_close_to_the_signal(errors_ms: Sequence[int]) -> None:
    sizes_ms = np.abs(errors_ms)
    assert sizes_ms.mean() <= 50
    assert np.percentile(sizes_ms, 95) <= 120


def _nearest(word: Token, sentences: Sequence[SpokenSentence]) -> SpokenSentence:
    middle_ms = (word.start_ms + word.end_ms) / 2
    return min(
        sentences,
        key=lambda spoken: max(spoken.start_ms - middle_ms, middle_ms - spoken.end_ms, 0.0),
    )
