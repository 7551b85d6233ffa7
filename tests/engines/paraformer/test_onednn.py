from __future__ import annotations

import pytest
import torch
from torch import nn

from serve_app.engines.paraformer import onednn
from serve_app.engines.paraformer.onednn import OneDnnLinear, linear_relu, padded_rows, use_onednn


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 160, 161, 300])
def test_product_is_that_of_the_layer(num_rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 33, bias=bias).requires_grad_(False)
    rows = torch.randn(num_rows, 64)
    with torch.inference_mode():
        fast = OneDnnLinear(linear)
        torch.testing.assert_close(fast(rows), linear(rows), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            linear_relu(fast, rows), linear(rows).relu(), atol=1e-5, rtol=1e-5
        )
        assert fast(rows).is_contiguous()


@pytest.mark.parametrize("num_rows", [20, 200])
def test_rows_of_a_wider_matrix_are_accepted(num_rows: int) -> None:
    linear = nn.Linear(64, 32).requires_grad_(False)
    rows = torch.randn(num_rows, 192)[:, 64:128]
    with torch.inference_mode():
        torch.testing.assert_close(OneDnnLinear(linear)(rows), linear(rows), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_rows", [20, 200])
def test_non_finite_row_does_not_affect_the_others(num_rows: int) -> None:
    linear = nn.Linear(64, 32).requires_grad_(False)
    rows = torch.randn(num_rows, 64)
    rows[3] = torch.nan
    with torch.inference_mode():
        found = OneDnnLinear(linear)(rows)
    assert torch.isnan(found[3]).all()
    assert torch.isfinite(torch.cat([found[:3], found[4:]])).all()


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
    rows = torch.randn(3, 8)
    assert torch.equal(linear_relu(module[0], rows), module[0](rows).relu())


def test_batches_are_padded_to_few_row_counts() -> None:
    filled = [padded_rows(count) for count in range(1025)]
    assert all(0 <= rows - count < 64 for count, rows in enumerate(filled))
    assert len(set(filled)) <= 40


def test_padding_of_a_large_batch_is_small() -> None:
    assert all(padded_rows(count) <= 1.08 * count for count in range(800, 20_000))


def test_few_rows_are_padded_to_vector_width() -> None:
    assert {padded_rows(count) % onednn._VECTOR_ROWS for count in range(onednn._FEW_ROWS)} == {0}
