"""Speech edges by signal energy, and word times snapped to them.

A recognizer's times have a resolution of 20 to 60 ms, are off by a frame or two, and extend words
into a following pause. Where speech is clearly louder than the pauses, the signal is more accurate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from serve_app.core.records import SAMPLES_PER_MS, Pcm, Token
from serve_app.engines.paraformer.timestamps import Span

_STEP_MS = 5
_WINDOW_STEPS = 2
_FLOOR_PERCENTILE, _LOUD_PERCENTILE = 5, 95
_ACTIVE_OVER_FLOOR = 4.0
# With less contrast (20 dB), breath, music or babble could be taken for speech.
_MIN_LOUD_OVER_FLOOR = 10.0
# With digital silence, any sound is louder than the noise floor.
_MIN_ACTIVE_SHARE_OF_LOUD = 0.01
# Stop closures inside words last up to 120 ms in Mandarin and English.
_MIN_PAUSE_MS = 150
_MIN_BURST_MS = 20
# A word is extended to an edge by at most this.
_MAX_STRETCH_MS = 200
# A word inside a pause moves to speech within this distance.
_MAX_MOVE_MS = 600
_MIN_WORD_MS = 40
# Final syllables are longer than others, rarely by more than this factor.
_LONGEST_OVER_USUAL = 1.3
_MIN_WORDS_FOR_RHYTHM = 4


@dataclass(slots=True)
class _Run:
    """Speech without a pause, and the indices of its words."""

    start_ms: int
    end_ms: int
    words: list[int]


def snap_to_speech_edges(
    pcm: Pcm, spans: Sequence[Span], *, ends_are_loose: bool = False
) -> list[Span]:
    """Moves words beside a pause to the edges of the speech.

    The first word after a pause starts with the sound, and the last one before it ends with the
    sound. A word inside a pause moves to nearby speech. Other words do not change. Without clear
    pauses, as in noise, no start changes.

    Args:
        pcm: the chunk.
        spans: of its words, in ms from its start, in order, without overlap.
        ends_are_loose: the words are syllables that extend into pauses. Without clear pauses
            they are shortened to a little over the median length.

    Returns:
        One span per word, in order, without overlap, inside the chunk.
    """
    runs = speech_runs(pcm)
    if not spans or not runs:
        return _cut_to_usual_length(spans) if ends_are_loose else list(spans)
    moved = [list(span) for span in spans]
    held = [_Run(start_ms, end_ms, []) for start_ms, end_ms in runs]
    latest = 0
    for number, span in enumerate(spans):
        found = _run_of(span, held, latest)
        if found is not None:
            held[found].words.append(number)
            latest = found
    for run in held:
        if run.words:
            _fit_words(run, spans, moved)
    return _without_overlap(moved, len(pcm) // SAMPLES_PER_MS)


def snap_words_to_speech_edges(pcm: Pcm, words: Sequence[Token]) -> tuple[Token, ...]:
    """Applies `snap_to_speech_edges` to words."""
    spans = snap_to_speech_edges(pcm, [(word.start_ms, word.end_ms) for word in words])
    return tuple(
        replace(word, start_ms=start_ms, end_ms=end_ms)
        for word, (start_ms, end_ms) in zip(words, spans, strict=True)
    )


def speech_runs(pcm: Pcm) -> list[Span]:
    """Returns the spans of sound between pauses; empty without clear pauses."""
    levels = _levels(pcm)
    if len(levels) == 0:
        return []
    floor, loud = np.percentile(levels, (_FLOOR_PERCENTILE, _LOUD_PERCENTILE))
    if not loud > 0.0 or loud < _MIN_LOUD_OVER_FLOOR * floor:
        return []
    threshold = max(_ACTIVE_OVER_FLOOR * floor, _MIN_ACTIVE_SHARE_OF_LOUD * loud)
    edges = np.flatnonzero(np.diff(levels > threshold, prepend=False, append=False))
    runs: list[list[int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        start_ms, end_ms = first * _STEP_MS, (end + _WINDOW_STEPS - 1) * _STEP_MS
        if runs and start_ms - runs[-1][1] < _MIN_PAUSE_MS:
            runs[-1][1] = end_ms
        else:
            runs.append([start_ms, end_ms])
    return [(start, end) for start, end in runs if end - start >= _MIN_BURST_MS]


def _cut_to_usual_length(spans: Sequence[Span]) -> list[Span]:
    if len(spans) < _MIN_WORDS_FOR_RHYTHM:
        return list(spans)
    usual_ms = float(np.median([end_ms - start_ms for start_ms, end_ms in spans]))
    longest_ms = max(round(_LONGEST_OVER_USUAL * usual_ms), _MIN_WORD_MS)
    return [(start_ms, min(end_ms, start_ms + longest_ms)) for start_ms, end_ms in spans]


def _levels(pcm: Pcm) -> npt.NDArray[np.float64]:
    """Returns the RMS level of 10 ms windows, every 5 ms."""
    step = _STEP_MS * SAMPLES_PER_MS
    num_steps = len(pcm) // step
    blocks = pcm[: num_steps * step].reshape(num_steps, step).astype(np.float32)
    energies = np.einsum("ij,ij->i", blocks, blocks).astype(np.float64)
    windows = energies[1:] + energies[:-1]
    return np.asarray(np.sqrt(windows / (_WINDOW_STEPS * step)))


def _run_of(span: Span, runs: list[_Run], first: int) -> int | None:
    """Returns the index of the run, from `first` on, that overlaps a word most or is nearest."""
    best: int | None = None
    best_overlap_ms = -_MAX_MOVE_MS
    for number in range(first, len(runs)):
        overlap_ms = min(span[1], runs[number].end_ms) - max(span[0], runs[number].start_ms)
        if runs[number].end_ms < span[0]:
            # A word that starts after the run more likely belongs to the next one.
            overlap_ms *= 2
        if overlap_ms > best_overlap_ms:
            best, best_overlap_ms = number, overlap_ms
        if runs[number].start_ms > span[1]:
            break
    return best


def _fit_words(run: _Run, spans: Sequence[Span], moved: list[list[int]]) -> None:
    """Moves the words of a run into it, and the outer ones to its edges."""
    least_ms = min(_MIN_WORD_MS, (run.end_ms - run.start_ms) // len(run.words))
    first, last = run.words[0], run.words[-1]
    for place, number in enumerate(run.words):
        start_ms, end_ms = spans[number]
        earliest_ms = run.start_ms + place * least_ms
        latest_ms = run.end_ms - (len(run.words) - place) * least_ms
        if number == first and start_ms - run.start_ms <= _MAX_STRETCH_MS:
            start_ms = run.start_ms
        start_ms = min(max(start_ms, earliest_ms), latest_ms)
        if number == last and run.end_ms - end_ms <= _MAX_STRETCH_MS:
            end_ms = run.end_ms
        moved[number] = [start_ms, min(max(end_ms, start_ms + least_ms), run.end_ms)]


def _without_overlap(moved: list[list[int]], duration_ms: int) -> list[Span]:
    """Cuts each word at the start of the next."""
    spans: list[Span] = []
    said_until_ms = 0
    for number, (start_ms, end_ms) in enumerate(moved):
        start_ms = min(max(start_ms, said_until_ms), duration_ms)
        if number + 1 < len(moved):
            end_ms = min(end_ms, max(moved[number + 1][0], start_ms))
        said_until_ms = min(max(end_ms, start_ms), duration_ms)
        spans.append((start_ms, said_until_ms))
    return spans
