"""Packing of sequences of different lengths without padding (varlen).

Row-wise layers run on one long matrix. Attention and convolution use the boundaries, so that they
never cross sequences: the result of a sequence does not depend on the rest of its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
import torch.nn.functional as F  # noqa: N812

from serve_app.engines.paraformer.onednn import padded_rows


class PackedSequences:
    """The boundaries of sequences in a packed matrix of shape [sum, dim].

    Attributes:
        lengths: rows of each sequence; 0 is allowed.
        total: rows of all sequences.
        num_filled: rows of a padded matrix, see `fill`.
        device: of the index tensors.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = tuple(lengths)
        self.device = device
        self._ends = tuple(accumulate(self.lengths))
        self.total = self._ends[-1] if self._ends else 0
        self.num_filled = padded_rows(self.total) if device.type == "cpu" else self.total

    def fill(self, packed: torch.Tensor) -> torch.Tensor:
        """[total, dim] -> [num_filled, dim]: appends rows of zeros.

        On the CPU this limits the number of different row counts for matrix kernels. Attention
        and convolution never read the added rows.
        """
        missing = self.num_filled - self.total
        return F.pad(packed, (0, 0, 0, missing)) if missing else packed

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First row and end row (exclusive) of each sequence."""
        return tuple(
            (end - length, end) for end, length in zip(self._ends, self.lengths, strict=True)
        )

    @cached_property
    def sequence_of_row(self) -> torch.Tensor:
        """int64 [total]: index of each row's sequence."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)
        return torch.arange(len(self.lengths)).repeat_interleave(lengths).to(self.device)

    @cached_property
    def padded_index(self) -> torch.Tensor:
        """int64 [count, longest]: the rows of each sequence, padded with its last row.

        Padding must come from the same sequence: NaN of another sequence times a masked weight
        of 0 would still be NaN.
        """
        starts = torch.tensor([start for start, _ in self.spans], dtype=torch.int64)[:, None]
        lengths = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        offsets = torch.arange(max(self.lengths, default=0))[None]
        filled = starts + torch.minimum(offsets, (lengths - 1).clamp_min(0))
        return filled.clamp_max(max(self.total - 1, 0)).to(self.device)

    @cached_property
    def padded_mask(self) -> torch.Tensor:
        """bool [count, longest]: False for padding."""
        lengths = torch.tensor(self.lengths, dtype=torch.int64)[:, None]
        return (torch.arange(max(self.lengths, default=0))[None] < lengths).to(self.device)


class ConvBuffer:
    """A scratch matrix with rows of zeros between the sequences.

    A convolution with at most `left` past and `right` future rows runs over it as over one
    sequence. Layers of the same width share one ConvBuffer; the rows of zeros are never written.
    """

    def __init__(self, layout: PackedSequences, width: int, left: int, right: int) -> None:
        gap = max(left, right)
        self._layout = layout
        # First row of each sequence in the convolved matrix.
        self._starts = [start + i * gap for i, (start, _) in enumerate(layout.spans)]
        rows = left + layout.total + max(len(layout.lengths) - 1, 0) * gap + right
        if layout.device.type == "cpu":
            rows = padded_rows(rows)
        self._scratch = torch.zeros(rows, width, device=layout.device)
        self._slots = self._parts(self._scratch[left:])

    @cached_property
    def _rows(self) -> torch.Tensor:
        """int64 [total]: index of each row in the convolved matrix."""
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
        """Adds the depthwise convolution to `onto`, in place."""
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
        """Convolves the buffer, including the rows of zeros."""
        self._fill_buffer(frames[: self._layout.total])
        # An image with rows as width, channels last: needs no transposition.
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
        query_layout: of the queries.
        key_layout: of keys and values, with the same number of sequences.

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
    """`attend` with one call per sequence, without padding."""
    attended = query.new_empty(query.shape)
    # These rows are never written; denormals in them could slow later layers.
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
    """`attend` in one call over a padded copy, for devices with a high cost per call.

    Padding is masked to a weight of 0.
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
