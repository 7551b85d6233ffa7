from __future__ import annotations

import pytest
import torch
from torch import nn

from serve_app.engines.onednn import OneDnnLinear, use_onednn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 300])
def test_product_is_that_of_the_layer(num_rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 33, bias=bias).requires_grad_(False)
    rows = torch.randn(num_rows, 64)
    with torch.inference_mode():
        assert torch.allclose(OneDnnLinear(linear)(rows), linear(rows), atol=1e-5)


def test_rows_of_a_wider_matrix_are_accepted() -> None:
    linear = nn.Linear(64, 32).requires_grad_(False)
    rows = torch.randn(20, 192)[:, 64:128]
    with torch.inference_mode():
        assert torch.allclose(OneDnnLinear(linear)(rows), linear(rows), atol=1e-5)


def test_parameters_are_shared_under_their_names() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4, bias=False))
    before = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    use_onednn(module)
    after = {name: parameter.data_ptr() for name, parameter in module.named_parameters()}
    assert after == before
    assert isinstance(module[0], OneDnnLinear)


def test_without_onednn_layers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    module = nn.Sequential(nn.Linear(8, 8))
    use_onednn(module)
    assert isinstance(module[0], nn.Linear)
