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

from serve_app.engines.paraformer.onednn import padded_rows


class PackedSequences:
    """Where each sequence begins and ends in a packed matrix of shape [sum, dim].

    Attributes:
        lengths: rows of each sequence; 0 is allowed.
        total: rows of all.
        num_filled: rows of a matrix that is filled up, see `fill`.
        device: where the index tensors lie.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.device = device
        self._ends = tuple(accumulate(self.lengths))
        self.total = self._ends[-1] if self._ends else 0
        self.num_filled = padded_rows(self.total) if device.type == "cpu" else self.total

    def fill(self, packed: torch.Tensor) -> torch.Tensor:
        """[total, dim] -> [num_filled, dim]: adds rows of zeros that are nobody's.

        On the CPU, matrix kernels like few different numbers of rows. What looks
        across rows never reads the added ones.
        """
        missing = self.num_filled - self.total
        return F.pad(packed, (0, 0, 0, missing)) if missing else packed

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
        neighbor's NaN would still be NaN.
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


class ConvBuffer:
    """A scratch matrix in which zero rows stand between the sequences.

    Convolutions with at most `left` rows to the past and `right` to the future
    run over it as over one sequence. One ConvBuffer serves all layers of a width:
    the zero rows are never written.
    """

    def __init__(self, layout: PackedSequences, width: int, left: int, right: int) -> None:
        gap = max(left, right)
        self._layout = layout
        # Where each sequence begins in what the convolution gives.
        self._starts = [start + i * gap for i, (start, _) in enumerate(layout.spans)]
        rows = left + layout.total + max(len(layout.lengths) - 1, 0) * gap + right
        if layout.device.type == "cpu":
            rows = padded_rows(rows)
        self._scratch = torch.zeros(rows, width, device=layout.device)
        self._slots = self._parts(self._scratch[left:])

    @cached_property
    def _rows(self) -> torch.Tensor:
        """int64 [total]: where each row stands in what the convolution gives."""
        starts = torch.tensor(self._starts, dtype=torch.int64, device=self._layout.device)
        shifts = starts - torch.tensor(
            [start for start, _ in self._layout.spans], device=self._layout.device
        )
        rows = torch.arange(self._layout.total, device=self._layout.device)
        return rows + shifts[self._layout.sequence_of_row]

    def convolve(
        self,
        frames: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        groups: int = 1,
    ) -> torch.Tensor:
        """Convolves along the rows of each sequence, with zeros beyond its ends.

        Args:
            frames: [at least total, width].
            weight: [out, width / groups, kernel] with kernel = left + right + 1.
            bias: [out] or None.
            groups: as in `torch.nn.functional.conv1d`.

        Returns:
            [total, out].
        """
        spread = self._convolve_buffer(frames, weight, bias, groups)
        if len(self._starts) == 1:
            return spread[: self._layout.total]
        return spread.index_select(0, self._rows)

    def add_convolved(
        self, onto: torch.Tensor, frames: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Adds to `onto`, in place, what `convolve` gives with a group a column."""
        groups = weight.shape[0]
        if onto.device.type != "cpu":
            onto[: self._layout.total] += self.convolve(frames, weight, groups=groups)
            return onto
        spread = self._convolve_buffer(frames, weight, None, groups)
        for (start, end), part in zip(self._layout.spans, self._parts(spread), strict=True):
            onto[start:end] += part
        return onto

    def _convolve_buffer(
        self, frames: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
    ) -> torch.Tensor:
        """The convolution of all rows, the zero rows between the sequences included."""
        self._fill_buffer(frames[: self._layout.total])
        # Rows as the image's width and channels last: no transposition is needed.
        image = self._scratch[None, None].permute(0, 3, 1, 2)
        convolved = F.conv2d(image, weight.unsqueeze(2), bias, groups=groups)
        return convolved.permute(0, 2, 3, 1)[0, 0]

    def _fill_buffer(self, frames: torch.Tensor) -> None:
        if frames.device.type == "cpu" or len(self._slots) == 1:
            for slot, (start, end) in zip(self._slots, self._layout.spans, strict=True):
                slot.copy_(frames[start:end])
        else:
            left = self._slots[0].storage_offset() // self._scratch.shape[1]
            self._scratch.index_copy_(0, self._rows + left, frames)

    def _parts(self, spread: torch.Tensor) -> list[torch.Tensor]:
        return [
            spread[start : start + length]
            for start, length in zip(self._starts, self._layout.lengths, strict=True)
        ]


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: PackedSequences,
    key_layout: PackedSequences,
) -> torch.Tensor:
    """Multi-head attention within each sequence.

    Args:
        query: [at least query_layout.total, dim], not yet scaled.
        key: [at least key_layout.total, dim].
        value: likewise.
        num_heads: divides dim.
        query_layout: borders of the queries.
        key_layout: borders of keys and values, as many sequences.

    Returns:
        The shape of `query`; rows beyond query_layout.total are zero.
    """
    if query.device.type == "cpu":
        return attend_one_by_one(query, key, value, num_heads, query_layout, key_layout)
    return attend_padded(query, key, value, num_heads, query_layout, key_layout)


def attend_one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: PackedSequences,
    key_layout: PackedSequences,
) -> torch.Tensor:
    """`attend` with one call per sequence: no wasted work, many small calls."""
    attended = query.new_empty(query.shape)
    # No sequence writes these, and rubbish may be slow to compute with.
    attended[query_layout.total :] = 0.0
    for (start, end), (first, last) in zip(query_layout.spans, key_layout.spans, strict=True):
        if start == end:
            continue
        heads = F.scaled_dot_product_attention(
            _heads(query[start:end], num_heads),
            _heads(key[first:last], num_heads),
            _heads(value[first:last], num_heads),
        )
        _heads(attended[start:end], num_heads).copy_(heads)
    return attended


def attend_padded(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    num_heads: int,
    query_layout: PackedSequences,
    key_layout: PackedSequences,
) -> torch.Tensor:
    """`attend` in one call over a padded copy: for devices where calls are dear.

    Only attention is padded, and what is padded is masked to a weight of 0.
    """
    head_size = query.shape[1] // num_heads

    def split(packed: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        rows = packed[layout.padded_index]
        return rows.view(*rows.shape[:2], num_heads, head_size).transpose(1, 2)

    heads = F.scaled_dot_product_attention(
        split(query, query_layout),
        split(key, key_layout),
        split(value, key_layout),
        attn_mask=key_layout.padded_mask[:, None, None, :],
    )
    attended = query.new_zeros(query.shape)
    rows = heads.transpose(1, 2)[query_layout.padded_mask]
    attended[: query_layout.total] = rows.flatten(1)
    return attended


def _heads(rows: torch.Tensor, num_heads: int) -> torch.Tensor:
    """[rows, dim] -> [1, heads, rows, dim / heads], a view."""
    return rows.view(rows.shape[0], num_heads, -1).transpose(0, 1)[None]
