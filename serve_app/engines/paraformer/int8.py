"""Linear layers in eight-bit integers, for the CPU.

Activations are scaled row by row, and integer sums are exact in any order: as in float32, a result
does not depend on the rest of its batch. One scale per call, as in PyTorch's dynamic quantization,
would break that.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from serve_app.core.errors import ConfigurationError
from serve_app.engines.paraformer.replacing import replace_linears

# CPUs without VNNI add pairs of u8 * s8 products in 16 bits, which saturate at
# 32767: 2 * 255 * 64 stays below. With 127, such CPUs would give other results.
_WEIGHT_LIMIT = 64
_ACTIVATION_LIMIT = 127
# oneDNN is fast only with unsigned activations (PyTorch 2.13): 128 stands for 0.
_ZERO_POINT = 128
_SMALLEST = 1e-30
_BLOCK_ROWS = 64


class QuantizedLinear(nn.Module):
    """Replaces an `nn.Linear`: int8 weights, float32 inputs and outputs.

    Weights have one scale per output channel, activations one per row. A row of zeros gives the
    bias; a non-finite row gives a non-finite row.

    Args:
        linear: not modified; its weight is not kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        steps = _steps(weight, _WEIGHT_LIMIT)
        codes = (weight / steps).round_().clamp_(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)
        self._packed: torch.Tensor = torch.ops.onednn.qlinear_prepack(codes.to(torch.int8), None)
        self._steps = steps[:, 0].contiguous()
        self._zero_points = torch.zeros(linear.out_features, dtype=torch.int32)
        self._bias = None if linear.bias is None else linear.bias.detach().clone()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out], float32."""
        codes, steps = quantize_rows(rows)
        products: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            _pad_to_blocks(codes),
            1.0,  # the scales are applied below, row by row
            _ZERO_POINT,
            self._packed,
            self._steps,
            self._zero_points,
            None,  # the bias must follow the scales
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        products = products[: len(rows)]
        if self._bias is None:
            return products.mul_(steps)
        return torch.addcmul(self._bias, products, steps, out=products)


def quantize_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes each row with its own scale.

    Args:
        rows: float32 [n, dim].

    Returns:
        codes, uint8 [n, dim], with zero point 128, and the scale of each row, float32 [n, 1]:
        rows is approximately (codes - 128) * steps.
    """
    steps = _steps(rows, _ACTIVATION_LIMIT)
    codes = (rows / steps).round_().to(torch.int8).view(torch.uint8)
    # Flipping the sign bit adds 128; direct conversion to uint8 is not vectorized.
    return codes.bitwise_xor_(_ZERO_POINT), steps


def _pad_to_blocks(codes: torch.Tensor) -> torch.Tensor:
    """Pads the rows to a multiple of 64.

    oneDNN caches a kernel for each shape. Without padding, the many batch lengths would cost
    hundreds of megabytes and the time for compiling kernels.
    """
    missing = -len(codes) % _BLOCK_ROWS
    return functional.pad(codes, (0, 0, 0, missing)) if missing else codes


def _steps(rows: torch.Tensor, limit: int) -> torch.Tensor:
    """Returns scales [n, 1] that map the largest absolute value of each row to the limit."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    # A row may be all zeros, and denormal steps would be rounded away.
    return largest.clamp_min_(_SMALLEST).div_(limit)


def quantize_linears(module: nn.Module) -> None:
    """Replaces, in place, every linear layer within the module.

    Args:
        module: on the CPU, loaded; it calls its linear layers with 2-D input.

    Raises:
        ConfigurationError: this CPU or this build of PyTorch has no exact int8 products.
    """
    _check_exact_products()
    replace_linears(module, QuantizedLinear)


def _check_exact_products() -> None:
    """Checks that sums of the largest possible products do not saturate."""
    width = 64
    linear = nn.Linear(width, width, bias=False)
    with torch.inference_mode():
        signs = torch.where(torch.arange(width) % 4 < 2, 1.0, -1.0)
        linear.weight.copy_(signs.expand(width, width))
        rows = torch.stack([torch.ones(width), signs, -signs])
        expected = linear(rows)
        try:
            found = QuantizedLinear(linear)(rows)
        except (AttributeError, RuntimeError) as error:
            raise ConfigurationError(
                f"int8 needs PyTorch's oneDNN kernels, which this build lacks: {error}"
            ) from error
    if not torch.allclose(found, expected, atol=1e-3):
        raise ConfigurationError("int8 products saturate on this CPU; use float32")
