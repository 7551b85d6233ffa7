"""Static sizes to which batches are padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_MULTIPLE = 64
_STEP = 1.4
_SMALLEST_ROWS = 128
_MIN_SEQUENCES = 16
_MAX_SEQUENCES = 512
LONGEST_ROWS = 512
"""Longest sequence of a bucket: 30 s of speech are 500 encoder frames."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The sizes for which the network is captured once.

    Attributes:
        rows: encoder frames, or words, of all sequences together.
        tokens: decoder rows of all sequences; 0 for a network without a decoder.
        sequences: maximum number of sequences.
        longest: rows of the longest sequence.
    """

    rows: int
    tokens: int
    sequences: int
    longest: int


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """Defines the buckets.

    Attributes:
        max_rows: rows of the largest bucket, which is the batch budget.
        tokens_per_row: decoder rows of a bucket per row.
        rows_per_sequence: expected minimum of the mean sequence length.
    """

    max_rows: int
    tokens_per_row: float = 0.0
    rows_per_sequence: int = 48

    def buckets(self) -> list[Bucket]:
        """All buckets, the largest first."""
        return [self._bucket(rows) for rows in reversed(ladder(self.max_rows))]

    def fit(self, lengths: Sequence[int]) -> Bucket | None:
        """Returns the smallest bucket that holds these sequences; None if none does."""
        total, longest = sum(lengths), max(lengths, default=0)
        if longest > LONGEST_ROWS:
            return None
        for rows in ladder(self.max_rows):
            bucket = self._bucket(rows)
            if total <= rows and len(lengths) <= bucket.sequences:
                return bucket
        return None

    def exact_bucket(self, lengths: Sequence[int], num_tokens: int | None = None) -> Bucket:
        """Returns a bucket that fits one batch, which then runs without a graph.

        Args:
            lengths: rows of each sequence.
            num_tokens: decoder rows, if known.
        """
        total = rounded_up(sum(lengths))
        if num_tokens is None:
            num_tokens = self._num_tokens(total, len(lengths))
        return Bucket(
            rows=total,
            tokens=rounded_up(num_tokens),
            sequences=len(lengths),
            longest=rounded_up(max(lengths, default=0)),
        )

    def _bucket(self, rows: int) -> Bucket:
        sequences = min(max(rows // self.rows_per_sequence, _MIN_SEQUENCES), _MAX_SEQUENCES)
        return Bucket(rows, self._num_tokens(rows, sequences), sequences, LONGEST_ROWS)

    def _num_tokens(self, rows: int, num_sequences: int) -> int:
        if self.tokens_per_row == 0.0:
            return 0
        # Rounding may give each sequence one token more than its rows account for.
        return rounded_up(int(rows * self.tokens_per_row) + num_sequences)


def ladder(largest: int) -> list[int]:
    """Returns ascending row counts up to `largest`, each at most 1.4 times the previous."""
    steps = [largest]
    while steps[-1] > _SMALLEST_ROWS:
        below = rounded_up(int(steps[-1] / _STEP))
        steps.append(max(_SMALLEST_ROWS, below if below < steps[-1] else _SMALLEST_ROWS))
    return steps[::-1]


def rounded_up(count: int) -> int:
    """Returns the next multiple of 64, at least 64, for which matrix kernels are fastest."""
    return max(_MULTIPLE, -(-count // _MULTIPLE) * _MULTIPLE)
