"""Training examples: an endless, seeded stream of audio rows with their targets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recipes.demo_packs.augment import (
    distort,
    draw_wordless,
    join_with_gaps,
    pad_with_silence,
    trim_edges,
)
from recipes.demo_packs.features import Matrix, log_mel, row_centers_s, stack_frames
from recipes.demo_packs.noises import Samples
from recipes.demo_packs.sentences import draw_training_sentence
from recipes.demo_packs.synthesizer import SAMPLE_RATE_HZ, VOICES, Speech, Voice, shared_synthesizer

_MAX_DURATION_S = 28.0
_EMPTY_SHARE = 0.04
_FRESH_SHARE = 0.5  # the rest is drawn again from the pool: synthesis is the slow part
_POOL_SIZE = 4_000
_NUM_PIECES, _PIECES_SHARES = (1, 2, 3, 5), (0.52, 0.27, 0.13, 0.08)
# A token fires this long after its character begins. FunASR takes the fire minus
# one and a half rows (90 ms) for the character's start; a fire is seen half a row
# late on average.
FIRE_DELAY_S = 0.075
_SPARE = 0.4  # weight beyond a fire while nothing is said: a gap cannot delay a fire
_TOTAL_SPARE = 0.05  # with the tail of 0.45 half a token of error is forgiven either way


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance.

    Attributes:
        rows: float32 (num_rows, 560), stacked features before normalization.
        tokens: int64 (num_tokens,), the characters' ids without an end token.
        frame_tokens: int64 (num_rows,), the character spoken in each row, 0 for none.
        weights: float32 (num_rows,), the wanted running sum of the predictor's alphas.
    """

    rows: Matrix
    tokens: npt.NDArray[np.int64]
    frame_tokens: npt.NDArray[np.int64]
    weights: Matrix


class ExampleStream:
    """Draws examples; the same seed gives the same examples."""

    def __init__(self, token_ids: dict[str, int], seed: int) -> None:
        """Start a stream with the ids of all characters."""
        self._token_ids = token_ids
        self._random = random.Random(f"examples {seed}")
        self._rng = np.random.default_rng(seed)
        self._pool: list[Speech] = []

    def __iter__(self) -> Iterator[Example]:
        """Yield examples without end."""
        while True:
            yield self.draw()

    def draw(self) -> Example:
        """Draw one example."""
        if self._random.random() < _EMPTY_SHARE:
            num_samples = int(self._rng.uniform(0.4, 8.0) * SAMPLE_RATE_HZ)
            samples = draw_wordless(self._rng, num_samples)
            return make_example(Speech(samples, "", np.zeros((0, 2))), self._token_ids)
        speech = self._draw_clean()
        samples = distort(speech.samples, self._rng, self._babble(len(speech.samples)))
        return make_example(Speech(samples, speech.characters, speech.spans), self._token_ids)

    def _draw_clean(self) -> Speech:
        pieces = [self._utterance()]
        duration_s = len(pieces[0].samples) / SAMPLE_RATE_HZ
        gaps_s: list[float] = []
        for _ in range(self._random.choices(_NUM_PIECES, _PIECES_SHARES)[0] - 1):
            piece, gap_s = self._utterance(), self._random.uniform(0.1, 1.2)
            duration_s += gap_s + len(piece.samples) / SAMPLE_RATE_HZ
            if duration_s > _MAX_DURATION_S:
                break
            pieces.append(piece)
            gaps_s.append(gap_s)
        before_s, after_s = self._edge_s(), self._edge_s()
        return pad_with_silence(join_with_gaps(pieces, gaps_s), before_s, after_s)

    def _edge_s(self) -> float:
        kind = self._random.random()
        if kind < 0.1:
            return -self._random.uniform(0.0, 0.06)
        return 0.0 if kind < 0.2 else self._random.uniform(0.0, 0.8)

    def _utterance(self) -> Speech:
        pick = self._random
        if len(self._pool) > 200 and pick.random() > _FRESH_SHARE:
            return pick.choice(self._pool)
        voice = Voice(
            variant=pick.choice(VOICES),
            words_per_minute=pick.randint(140, 225),
            pitch=pick.randint(35, 65),
            speed=pick.uniform(0.9, 1.1),
        )
        speech = shared_synthesizer().speak(draw_training_sentence(pick), voice)
        speech = trim_edges(speech)
        if len(self._pool) < _POOL_SIZE:
            self._pool.append(speech)
        else:
            self._pool[pick.randrange(_POOL_SIZE)] = speech
        return speech

    def _babble(self, num_samples: int) -> Samples | None:
        if len(self._pool) < 50 or self._random.random() > 0.15:
            return None
        out = np.zeros(num_samples, np.float32)
        for _ in range(self._random.randint(3, 6)):
            voice = np.resize(self._random.choice(self._pool).samples, num_samples)
            out += np.roll(voice, self._random.randrange(max(1, num_samples)))
        return out


def make_example(speech: Speech, token_ids: dict[str, int]) -> Example:
    """Compute the features and targets of an utterance."""
    rows = stack_frames(log_mel(speech.samples))
    centers_s = row_centers_s(len(rows))
    tokens = np.array([token_ids[c] for c in speech.characters], np.int64)
    return Example(
        rows=rows,
        tokens=tokens,
        frame_tokens=_frame_tokens(centers_s, speech.spans, tokens),
        weights=_weights(centers_s, speech.spans),
    )


def _frame_tokens(
    centers_s: npt.NDArray[np.float64],
    spans: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    if not len(tokens):
        return np.zeros(len(centers_s), np.int64)
    places = np.clip(np.searchsorted(spans[:, 0], centers_s, side="right") - 1, 0, None)
    inside = (centers_s >= spans[places, 0]) & (centers_s < spans[places, 1])
    return np.where(inside, tokens[places], 0)


def _weights(centers_s: npt.NDArray[np.float64], spans: npt.NDArray[np.float64]) -> Matrix:
    """The running sum that makes token k fire FIRE_DELAY_S after its start."""
    count = len(spans)
    if not len(centers_s):
        return np.zeros(0, np.float32)
    total = count + 1.0 + _TOTAL_SPARE
    if not count:
        sums = np.interp(centers_s, centers_s[-1] + np.array([-0.18, 0.0]), [0.0, total])
        return sums.astype(np.float32)
    order = np.arange(count)
    starts_s, ends_s = spans[:, 0], spans[:, 1]
    fires_s = starts_s + np.minimum(FIRE_DELAY_S, 0.45 * (ends_s - starts_s))
    times_s = np.stack([starts_s, fires_s, ends_s], axis=1).ravel()
    sums = np.stack([order + _SPARE, order + 1.0, order + 1.0 + _SPARE], axis=1).ravel()
    end_s = float(ends_s[-1])
    times_s = np.concatenate([[starts_s[0] - 0.09], times_s, [end_s + FIRE_DELAY_S, end_s + 0.12]])
    sums = np.concatenate([[0.0], sums, [count + 1.0, total]])
    sums[0] = 0.0
    wanted = np.interp(centers_s, np.maximum.accumulate(times_s), sums)
    wanted[-1] = total
    return wanted.astype(np.float32)
