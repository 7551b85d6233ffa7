from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from serve_app.engines.paraformer.packing import (
    ConvBuffer,
    PackedSequences,
    attend_one_by_one,
    attend_padded,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [[7], [1, 9, 4], [3, 3], [12, 1, 1, 6]])
@pytest.mark.parametrize(("left", "right"), [(5, 5), (3, 1), (0, 2), (4, 0)])
def test_convolution_never_mixes_sequences(lengths: list[int], left: int, right: int) -> None:
    rows = torch.randn(sum(lengths), 6)
    weight = torch.randn(6, 1, left + right + 1)
    conv_buffer = ConvBuffer(PackedSequences(lengths, CPU), 6, left, right)
    conv_buffer.convolve(torch.randn(sum(lengths), 6), weight, groups=6)  # leaves nothing behind
    convolved = conv_buffer.convolve(rows, weight, groups=6)
    alone = [
        F.conv1d(F.pad(part.T[None], (left, right)), weight, groups=6)[0].T
        for part in torch.split(rows, lengths)
    ]
    torch.testing.assert_close(convolved, torch.cat(alone))


@pytest.mark.parametrize("lengths", [[5], [1, 9, 4]])
@pytest.mark.parametrize("num_tokens", [3, 0])
def test_padded_attention_equals_attention_one_by_one(lengths: list[int], num_tokens: int) -> None:
    frames = PackedSequences(lengths, CPU)
    tokens = PackedSequences([num_tokens, *range(2, len(lengths) + 1)], CPU)
    query = torch.randn(tokens.total, 8)
    key, value = torch.randn(2, frames.total, 8)
    one_by_one = attend_one_by_one(query, key, value, 2, tokens, frames)
    torch.testing.assert_close(attend_padded(query, key, value, 2, tokens, frames), one_by_one)


@pytest.mark.parametrize("attend", [attend_one_by_one, attend_padded])
def test_non_finite_sequence_does_not_affect_its_neighbors(
    attend: Callable[..., torch.Tensor],
) -> None:
    layout = PackedSequences([3, 2, 4], CPU)
    rows = torch.randn(layout.total, 8)
    rows[3:5] = torch.nan
    attended = attend(rows, rows, rows, 2, layout, layout)
    assert torch.isfinite(attended[:3]).all()
    assert torch.isfinite(attended[5:]).all()
    assert torch.isnan(attended[3:5]).all()


@pytest.mark.parametrize("lengths", [[7], [1, 9, 4], [3, 0, 3]])
def test_padding_rows_are_zero_and_never_read(lengths: list[int]) -> None:
    layout = PackedSequences(lengths, CPU)
    rows = torch.randn(layout.total, 8)
    filled = layout.fill(rows)
    assert len(filled) == layout.num_filled >= layout.total
    assert not filled[layout.total :].any()
    filled[layout.total :] = torch.nan
    for attend in (attend_one_by_one, attend_padded):
        attended = attend(filled, filled, filled, 2, layout, layout)
        assert not attended[layout.total :].any()
        expected = attend(rows, rows, rows, 2, layout, layout)
        torch.testing.assert_close(attended[: layout.total], expected)


@pytest.mark.parametrize("lengths", [[7], [1, 9, 4], [3, 0, 3]])
def test_convolution_is_added_in_place(lengths: list[int]) -> None:
    layout = PackedSequences(lengths, CPU)
    frames, weight = layout.fill(torch.randn(layout.total, 6)), torch.randn(6, 1, 11)
    conv_buffer = ConvBuffer(layout, 6, 5, 5)
    onto = torch.randn(layout.num_filled, 6)
    expected = onto.clone()
    expected[: layout.total] += conv_buffer.convolve(frames, weight, groups=6)
    torch.testing.assert_close(conv_buffer.add_convolved(onto, frames, weight), expected)
