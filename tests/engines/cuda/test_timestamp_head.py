from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from serve_app.engines.cuda.timestamp_head import TimestampHead, time_major
from serve_app.engines.cuda.weights import Weights
from serve_app.engines.paraformer.cif import CifShape
from serve_app.engines.paraformer.network import TimestampHeadShape, TimestampPredictor
from serve_app.engines.paraformer.packing import PackedSequences
from tests.fakes.tiny_packs import fill_at_random

CPU = torch.device("cpu")


@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_order_is_that_of_packed_sequences(lengths: list[int]) -> None:
    parts = list(torch.split(torch.arange(sum(lengths)), lengths))
    packed = pack_sequence(parts, enforce_sorted=False)
    order, batch_sizes = time_major(np.array(lengths))
    assert batch_sizes.tolist() == packed.batch_sizes.tolist()
    starts = {int(part[0]) for part in parts}
    assert set(order[: len(lengths)].tolist()) == starts
    assert sorted(order.tolist()) == list(range(sum(lengths)))


@pytest.mark.parametrize("recurrent", [True, False])
def test_weights_are_those_of_the_cpu_engine(recurrent: bool) -> None:
    shape = CifShape(size=16, left=1, right=1)
    head = TimestampHeadShape(recurrent, False, smooth_factor=0.25, noise_threshold=0.01)
    theirs = TimestampPredictor(shape, head)
    fill_at_random(theirs, 5)
    theirs.requires_grad_(False)
    state = {f"predictor.{name}": tensor for name, tensor in theirs.state_dict().items()}
    ours = TimestampHead(Weights(state, CPU, torch.float32), head, 16)
    lengths = [5, 1, 12]
    frames = torch.randn(30, 16, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = torch.cat(theirs.fine_alphas(frames[:18], PackedSequences(lengths, CPU)))
        found = ours.forward(frames, np.array([*lengths, 0], dtype=np.int32))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
