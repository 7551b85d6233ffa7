"""Sequences of different lengths laid end to end, without padding.

Layers that treat each frame by itself see one long matrix. What looks across
frames, attention and convolution, is given the borders here, so that no
sequence ever sees another, or a padded frame: the result of a batch is the
result of each sequence alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as F  # noqa: N812


class Ragged:
    """Where each sequence begins and ends in a packed matrix of shape [sum, dim].

    Attributes:
        lengths: rows of each sequence; 0 is allowed.
        total: rows of all.
        device: where the index tensors lie.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.device = device
        self._ends = tuple(accumulate(self.lengths))
        self.total = self._ends[-1] if self._ends else 0

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First row and the row after the last, for each sequence."""
        return tuple(
            (end - length, end) for end, length in zip(self._ends, self.lengths, strict=True)
        )

    @cached_property
    def sequence_of_row(self) -> torch.Tensor:
        """int64 [total]: which sequence a row belongs to."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)
        return torch.arange(len(self.lengths)).repeat_interleave(lengths).to(self.device)

    @cached_property
    def padded_index(self) -> torch.Tensor:
        """int64 [count, longest]: the rows of each sequence, its last one repeated.

        The filler must come from the same sequence: a masked weight of 0 times a
        neighbour's NaN would still be NaN.
        """
        starts = torch.tensor([start for start, _ in self.spans], dtype=torch.int64)[:, None]
        lengths = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        offsets = torch.arange(max(self.lengths, default=0))[None]
        filled = starts + torch.minimum(offsets, (lengths - 1).clamp_min(0))
        return filled.clamp_max(max(self.total - 1, 0)).to(self.device)

    @cached_property
    def padded_mask(self) -> torch.Tensor:
        """bool [count, longest]: True where padded_index holds a row of its own."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        return (torch.arange(max(self.lengths, default=0))[None] < lengths).to(self.device)


class Spaced:
    """A scratch matrix in which zero rows stand between the sequences.

    Convolutions with at most `left` rows to the past and `right` to the future
    run over it as over one sequence. One Spaced serves all layers of a width:
    the zero rows are never written.
    """

    def __init__(self, layout: Ragged, width: int, left: int, right: int) -> None:
        gap = max(left, right)
        self.left = left
        self._single = len(layout.lengths) == 1
        rows = left + layout.total + max(len(layout.lengths) - 1, 0) * gap + right
        self._rows = torch.arange(layout.total, device=layout.device) + layout.sequence_of_row * gap
        self._scratch = torch.zeros(rows, width, device=layout.device)
        self._total = layout.total

    def convolve(
        self,
        frames: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        groups: int = 1,
    ) -> torch.Tensor:
        """Convolves along the rows of each sequence, with zeros beyond its ends.

        Args:
            frames: [total, width].
            weight: [out, width / groups, kernel] with kernel = left + right + 1.
            bias: [out] or None.
            groups: as in `torch.nn.functional.conv1d`.

        Returns:
            [total, out].
        """
        if self._single:
            self._scratch[self.left : self.left + self._total] = frames
        else:
            self._scratch.index_copy_(0, self._rows + self.left, frames)
        # Rows as the image's width and channels last: no transposition is needed.
        image = self._scratch[None, None].permute(0, 3, 1, 2)
        convolved = F.conv2d(image, weight.unsqueeze(2), bias, groups=groups)
        rows = convolved.permute(0, 2, 3, 1)[0, 0]
        return rows if self._single else rows.index_select(0, self._rows)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: Ragged,
    key_layout: Ragged,
) -> torch.Tensor:
    """Multi-head attention within each sequence.

    Args:
        query: [query_layout.total, dim], not yet scaled.
        key: [key_layout.total, dim].
        value: [key_layout.total, dim].
        num_heads: divides dim.
        query_layout: borders of the queries.
        key_layout: borders of keys and values, as many sequences.

    Returns:
        [query_layout.total, dim].
    """
    if query.device.type == "cpu":
        return attend_one_by_one(query, key, value, num_heads, query_layout, key_layout)
    return attend_padded(query, key, value, num_heads, query_layout, key_layout)


def attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: Ragged,
    key_layout: Ragged,
) -> torch.Tensor:
    """`attend` with one call per sequence: no wasted work, many small calls."""
    attended = query.new_empty(query.shape)
    for (start, end), (first, last) in zip(query_layout.spans, key_layout.spans, strict=True):
        if start == end:
            continue
        heads = F.scaled_dot_product_attention(
            _heads(query[start:end], num_heads),
            _heads(key[first:last], num_heads),
            _heads(value[first:last], num_heads),
        )
        attended[start:end] = heads[0].transpose(0, 1).reshape(end - start, -1)
    return attended


def attend_padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: Ragged,
    key_layout: Ragged,
) -> torch.Tensor:
    """`attend` in one call over a padded copy: for devices where calls are dear.

    Only attention is padded, and what is padded is masked to a weight of 0.
    """
    head_size = query.shape[1] // num_heads

    def split(packed: torch.Tensor, layout: Ragged) -> torch.Tensor:
        rows = packed[layout.padded_index]
        return rows.view(*rows.shape[:2], num_heads, head_size).transpose(1, 2)

    heads = F.scaled_dot_product_attention(
        split(query, query_layout),
        split(key, key_layout),
        split(value, key_layout),
        attn_mask=key_layout.padded_mask[:, None, None, :],
    )
    return heads.transpose(1, 2)[query_layout.padded_mask].reshape(query.shape)


def _heads(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """[rows, dim] -> [1, heads, rows, dim / heads], a view."""
    return rows.view(rows.shape[0], num_heads, -1).transpose(0, 1)[None]
