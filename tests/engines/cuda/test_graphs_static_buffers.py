from __future__ import annotations

import torch

from serve_app.engines.cuda.graphs import StaticBuffers

CPU = torch.device("cpu")


def test_static_buffer_never_moves() -> None:
    kept = StaticBuffers(8, 3, torch.float16, CPU)
    assert kept.first(8).data_ptr() == kept.first(2).data_ptr()
    kept.first(20)
    assert kept.first(8).data_ptr() == kept.first(2).data_ptr()
    assert kept.first(2).shape == (2, 3)


def test_oversized_batch_gets_its_own_buffer() -> None:
    kept = StaticBuffers(8, 3, torch.float16, CPU)
    large = kept.first(20)
    assert large.shape == (20, 3)
    assert large.dtype == torch.float16
    large.fill_(1.0)
    assert kept.first(20).sum() == 60
    assert kept.first(8).sum() == 0
    assert kept.first(30).shape == (30, 3)
