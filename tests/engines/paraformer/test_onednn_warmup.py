from __future__ import annotations

import pytest
import torch

from serve_app.engines.paraformer.onednn import linear_relu, padded_rows, use_onednn
from serve_app.engines.paraformer.onednn_warmup import compile_kernels
from serve_app.engines.paraformer.sanm import SanmEncoder, SanmShape


@pytest.mark.parametrize("num_blocks", [1, 3])
def test_every_padded_row_count_is_run_once(
    num_blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = SanmEncoder(8, SanmShape(16, 2, 32, num_blocks)).requires_grad_(False).eval()
    use_onednn(encoder.encoders)
    met: list[int] = []

    def relu(linear: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        met.append(len(rows))
        return linear_relu(linear, rows)

    monkeypatch.setattr("serve_app.engines.paraformer.sanm.linear_relu", relu)
    compile_kernels(encoder)
    counts = {padded_rows(count) for count in range(1, 1025)}
    assert set(met) == (counts if num_blocks > 1 else set())
