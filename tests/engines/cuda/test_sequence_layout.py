from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from serve_app.engines.cuda.sequence_layout import lay_out, shifted


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), filler=st.integers(0, 9))
def test_rows_have_their_sequence_and_position(lengths: list[int], filler: int) -> None:
    sequence_layout = lay_out(torch.tensor(lengths), sum(lengths) + filler, 16)
    places = [(s, p, n) for s, n in enumerate(lengths) for p in range(n)]
    found = zip(
        sequence_layout.sequence.tolist(),
        sequence_layout.position.tolist(),
        sequence_layout.length.tolist(),
        strict=True,
    )
    assert list(found)[: len(places)] == places
    assert sequence_layout.filled.tolist() == [True] * len(places) + [False] * filler
    assert sequence_layout.lengths.tolist() == lengths
    assert sequence_layout.offsets.dtype == torch.int32


def test_rows_beyond_the_bucket_are_cut_off() -> None:
    sequence_layout = lay_out(torch.tensor([3, 4, 5]), 6, 8)
    assert sequence_layout.offsets.tolist() == [0, 3, 6, 6]


def test_shifting_never_crosses_sequences() -> None:
    sequence_layout = lay_out(torch.tensor([2, 0, 3]), 7, 4)
    rows = torch.arange(1.0, 8.0)[:, None]
    rows[5:] = torch.nan
    assert shifted(rows, sequence_layout, 1)[:5, 0].tolist() == [2.0, 0.0, 4.0, 5.0, 0.0]
    assert shifted(rows, sequence_layout, -2)[:5, 0].tolist() == [0.0, 0.0, 0.0, 0.0, 3.0]
