"""Where sequences lie in a packed matrix whose number of rows is static."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class SequenceLayout:
    """Borders on the device; nothing here is ever read by the host.

    Rows beyond the last sequence fill up a bucket. They belong to no sequence:
    whatever they hold, NaN included, no layer reads it into a row of a sequence.

    Attributes:
        offsets: int32 [sequences + 1], first row of each sequence, then the end.
        sequence: int64 [rows], which sequence a row belongs to; any for filler.
        position: int64 [rows], place within the sequence, 0 for filler.
        length: int64 [rows], rows of the row's sequence, 0 for filler.
        longest: no sequence has more rows; static.
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
        """bool [rows]: False for filler."""
        return self.length > 0

    @property
    def lengths(self) -> torch.Tensor:
        """int32 [sequences]."""
        return self.offsets[1:] - self.offsets[:-1]


def lay_out(lengths: torch.Tensor, num_rows: int, longest: int) -> SequenceLayout:
    """Lays sequences end to end.

    Args:
        lengths: int [sequences]; what does not fit into the rows is cut off.
        num_rows: of the packed matrix.
        longest: bound of lengths.
    """
    sums = torch.cumsum(lengths, dim=0, dtype=torch.int64).clamp_max_(num_rows)
    offsets = torch.cat([sums.new_zeros(1), sums])
    rows = torch.arange(num_rows, device=lengths.device)
    # As many sequences as end at or before a row come before it, empty ones too.
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
    """Each row's neighbor `by` rows on, zero beyond the ends of its sequence."""
    target = sequence_layout.position + by
    inside = (target >= 0) & (target < sequence_layout.length)
    here = torch.arange(sequence_layout.num_rows, device=rows.device)
    index = torch.where(inside, here + by, here)
    # Filled, not multiplied: a neighbor's NaN times 0 would still be NaN.
    return rows[index].masked_fill_(~inside[:, None], 0)
