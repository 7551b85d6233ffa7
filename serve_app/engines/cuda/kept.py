"""Rows that a graph leaves behind for what comes after it."""

from __future__ import annotations

import torch


class KeptRows:
    """A matrix that always lies in the same place, as a graph demands.

    Used by one batch at a time: the next one overwrites it.

    Args:
        max_rows: of the largest bucket.
        size: width of the rows.
        dtype: of the rows.
        device: where they lie.
    """

    def __init__(self, max_rows: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._max_rows = max_rows
        self._rows = torch.zeros(max_rows, size, dtype=dtype, device=device)
        self._more: torch.Tensor | None = None

    def first(self, num_rows: int) -> torch.Tensor:
        """Returns the first rows, [num_rows, size], to be written or read."""
        if num_rows <= self._max_rows:
            return self._rows[:num_rows]
        # A batch beyond every bucket has no graph; what served the one before may go.
        if self._more is None or len(self._more) != num_rows:
            self._more = None
            self._more = self._rows.new_zeros(num_rows, self._rows.shape[1])
        return self._more
