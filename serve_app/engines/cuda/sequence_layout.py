"""The layout of sequences in a packed matrix with a static number of rows (cu_seqlens)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class SequenceLayout:
    """Sequence boundaries on the device; the host never reads them.

    Rows beyond the last sequence are padding of the bucket. No layer reads them into a row of a
    sequence, so they may hold anything, even NaN.

    Attributes:
        offsets: cu_seqlens, int32 [sequences + 1]: first row of each sequence, then the end.
        sequence: int64 [rows], index of a row's sequence; undefined for padding.
        position: int64 [rows], index within the sequence; 0 for padding.
        length: int64 [rows], length of the row's sequence; 0 for padding.
        longest: static upper bound of the lengths.
    """

    offsets: torch.Tensor
    sequence: torch.Tensor
    position: torch.Tensor
    length: torch.Tensor
    longest: int

    @property
    def num_rows(self) -> int:
        return self.sequence.shape[0]

    @property
    def num_sequences(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def filled(self) -> torch.Tensor:
        """bool [rows]: False for padding."""
        return self.length > 0

    @property
    def lengths(self) -> torch.Tensor:
        """int32 [sequences]."""
        return self.offsets[1:] - self.offsets[:-1]


def lay_out(lengths: torch.Tensor, num_rows: int, longest: int) -> SequenceLayout:
    """Returns the layout of packed sequences.

    Args:
        lengths: int [sequences]; rows beyond `num_rows` are cut off.
        num_rows: of the packed matrix.
        longest: upper bound of the lengths.
    """
    sums = torch.cumsum(lengths, dim=0, dtype=torch.int64).clamp_max_(num_rows)
    offsets = torch.cat([sums.new_zeros(1), sums])
    rows = torch.arange(num_rows, device=lengths.device)
    # The index of a row's sequence is the number of sequences that end at or before the row.
    sequence = torch.searchsorted(sums, rows, right=True)
    filled = sequence < lengths.shape[0]
    sequence = sequence.clamp_max_(lengths.shape[0] - 1)
    start = offsets[sequence]
    return SequenceLayout(
        offsets=offsets.to(torch.int32),
        sequence=sequence,
        position=(rows - start).masked_fill_(~filled, 0),
        length=(offsets[sequence + 1] - start).masked_fill_(~filled, 0),
        longest=longest,
    )


def shifted(rows: torch.Tensor, sequence_layout: SequenceLayout, by: int) -> torch.Tensor:
    """Returns each row's neighbor `by` rows later, zero beyond the ends of its sequence."""
    target = sequence_layout.position + by
    inside = (target >= 0) & (target < sequence_layout.length)
    here = torch.arange(sequence_layout.num_rows, device=rows.device)
    index = torch.where(inside, here + by, here)
    # masked_fill instead of a product: NaN times 0 would still be NaN.
    return rows[index].masked_fill_(~inside[:, None], 0)
