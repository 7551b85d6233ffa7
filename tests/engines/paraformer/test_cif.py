from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from serve_app.engines.paraformer.cif import CifShape, Integration, embed_tokens, integrate
from serve_app.engines.paraformer.packing import PackedSequences

SHAPE = CifShape(size=4, left=1, right=1)


def _integrate(*alphas: float, sequential: bool = False) -> Integration:
    return integrate(torch.tensor(alphas), SHAPE, sequential)


@pytest.mark.parametrize("sequential", [False, True])
def test_frame_is_shared_where_a_token_fires(sequential: bool) -> None:
    found = _integrate(0.75, 0.5, 0.75, 0.0, sequential=sequential)
    cells = dict(zip(zip(found.tokens, found.frames, strict=True), found.shares, strict=True))
    assert found.num_tokens == 2
    assert cells == {(0, 0): 0.75, (0, 1): 0.25, (1, 1): 0.25, (1, 2): 0.75}


@pytest.mark.parametrize("sequential", [False, True])
def test_nearly_full_last_token_fires_at_the_tail(sequential: bool) -> None:
    assert _integrate(0.5, 0.125, sequential=sequential).num_tokens == 1
    assert _integrate(0.5, 0.0, sequential=sequential).num_tokens == 0


@given(
    hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(0, 1, width=32)),
    st.booleans(),
)
def test_each_token_but_the_last_has_a_mass_of_one(
    alphas: np.typing.NDArray[np.float32], sequential: bool
) -> None:
    found = integrate(torch.from_numpy(alphas), SHAPE, sequential)
    mass = np.bincount(found.tokens, found.shares, found.num_tokens)
    assert found.num_tokens == pytest.approx(alphas.sum() + 0.45, abs=1.001)
    np.testing.assert_allclose(mass[:-2], 1.0, atol=1e-4)


def test_embedding_is_the_weighted_sum_of_frames() -> None:
    layout = PackedSequences([2, 3], torch.device("cpu"))
    frames = torch.arange(20.0).view(5, 4)
    found = [_integrate(0.5, 0.5), _integrate(0.25, 0.5, 0.25)]
    expected = torch.stack([frames[:2].mean(0), frames[3]])
    torch.testing.assert_close(embed_tokens(frames, layout, found), expected)
