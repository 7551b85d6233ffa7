from __future__ import annotations

import numpy as np
import torch

from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.cuda.readback import ReadbackLayout


def test_readback_returns_the_written_values() -> None:
    layout = ReadbackLayout(Bucket(rows=4, tokens=3, sequences=2, longest=4), fine=True)
    results = torch.full((layout.num_bytes + 9,), 255, dtype=torch.uint8)
    layout.write(
        results,
        counts=torch.tensor([2, 1]),
        broken=torch.tensor([False, True]),
        ids=torch.tensor([7, 8, 9], dtype=torch.int32),
        confidences=torch.tensor([0.5, 0.25, 1.0]),
    )
    layout.write_alphas(results, torch.arange(12.0))
    heard = layout.read(results.numpy()[: layout.num_bytes])
    assert heard.counts.tolist() == [2, 1]
    assert heard.broken.tolist() == [0, 1]
    assert heard.ids.tolist() == [7, 8, 9]
    assert heard.confidences.tolist() == [0.5, 0.25, 1.0]
    assert heard.alphas.tolist() == np.arange(12.0).tolist()
    assert results[layout.num_bytes :].tolist() == [255] * 9


def test_pack_without_a_timestamp_head_returns_the_predictor_weights() -> None:
    layout = ReadbackLayout(Bucket(rows=64, tokens=64, sequences=1, longest=64), fine=False)
    results = torch.zeros(layout.num_bytes, dtype=torch.uint8)
    layout.write_alphas(results, torch.arange(64.0))
    assert layout.read(results.numpy()).alphas.tolist() == np.arange(64.0).tolist()
