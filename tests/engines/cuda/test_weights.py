from __future__ import annotations

import pytest
import torch

from serve_app.core.errors import ConfigurationError
from serve_app.engines.cuda.weights import RangeWatch, Weights

CPU = torch.device("cpu")
LARGE = {"decoder.output_layer.weight": torch.full((2, 2), 1e5)}


def test_weight_beyond_float16_is_refused_by_name() -> None:
    weights = Weights(LARGE, CPU, torch.float16)
    with pytest.raises(ConfigurationError, match=r"decoder\.output_layer\.weight.*bfloat16"):
        weights.linear("decoder.output_layer")


def test_bfloat16_accepts_values_that_overflow_float16() -> None:
    weight = Weights(LARGE, CPU, torch.bfloat16).linear("decoder.output_layer").weight
    assert weight.dtype == torch.bfloat16
    assert bool(torch.isfinite(weight).all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weight_is_refused_in_float32(value: float) -> None:
    weights = Weights({"w.weight": torch.tensor([1.0, value])}, CPU, torch.float32)
    with pytest.raises(ConfigurationError, match=r"w\.weight.*damaged"):
        weights.tensor("w.weight")


def test_taps_are_those_of_the_convolution() -> None:
    weights = Weights({"taps": torch.arange(6.0).view(2, 1, 3)}, CPU, torch.float16)
    taps = weights.taps("taps")
    assert taps.dtype == torch.float32
    assert taps.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_overflow_names_the_first_layer() -> None:
    watch = RangeWatch(torch.float16)
    filled = torch.tensor([True, False])
    watch("encoder.encoders.0", torch.tensor([[1.0], [torch.nan]]), filled)
    watch.check_finite()
    watch("encoder.encoders.1", torch.tensor([[torch.inf], [0.0]]), filled)
    watch("encoder.encoders.2", torch.tensor([[torch.nan], [0.0]]), filled)
    with pytest.raises(ConfigurationError, match=r"encoders\.1 is not finite.*bfloat16"):
        watch.check_finite()


def test_headroom_is_the_unused_range() -> None:
    watch = RangeWatch(torch.float16)
    watch("layer", torch.tensor([[-655.04], [9e4]]), torch.tensor([True, False]))
    watch("empty", torch.empty(2, 1), torch.tensor([False, False]))
    assert watch.headroom == pytest.approx(100.0)
