"""Linear layers on oneDNN instead of MKL.

On a Zen 4 core, oneDNN's float32 product of several hundred rows takes 90 % of MKL's time. For few
rows the product is transposed, W x^T instead of x W^T: the weights are then read once in their
memory layout and only the few rows are reordered, which takes two thirds of MKL's time. Weights
are not copied, so that processes still share the pages of a mapped file.

oneDNN compiles a kernel of about 0.6 MB for each row count and caches a thousand. `padded_rows`
reduces the number of different row counts.
"""

from __future__ import annotations

import torch
from torch import nn

from serve_app.core.errors import ConfigurationError
from serve_app.engines.cpu_features import multiplies_bfloat16
from serve_app.engines.paraformer.replacing import replace_linears

# Up to this many rows the product is transposed.
_FEW_ROWS = 160
# The width of a vector register, which the kernels fill up anyway.
_VECTOR_ROWS = 16
_STEPS = ((_FEW_ROWS, _VECTOR_ROWS), (256, 32), (768, 64), (896, 32), (1024, 16))

# The layout of packed weights is the same from 64 rows on.
_PACKED_ROWS = 1024


def padded_rows(num_rows: int) -> int:
    """Returns the number of rows to which a packed matrix is padded, one of few."""
    for limit, step in _STEPS:
        if num_rows <= limit:
            return -(-num_rows // step) * step
    # 16 values per power of 2.
    step = 1 << (num_rows - 1).bit_length() - 5
    return -(-num_rows // step) * step


class OneDnnLinear(nn.Module):
    """Replaces an `nn.Linear` on the CPU and shares its parameters.

    Args:
        linear: float32.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]; for inference only, without gradients."""
        if len(rows) > _FEW_ROWS:
            return product(rows, self.weight, self.bias)
        transposed = product(self.weight, rows)
        if self.bias is None:
            return transposed.t().contiguous()
        return torch.add(transposed.t(), self.bias, out=rows.new_empty(len(rows), len(transposed)))

    def forward_relu(self, rows: torch.Tensor) -> torch.Tensor:
        """As `forward`, followed by ReLU; the result may be non-contiguous."""
        if len(rows) > _FEW_ROWS:
            return product(rows, self.weight, self.bias, "relu")
        transposed = product(self.weight, rows)
        if self.bias is not None:
            transposed += self.bias[:, None]
        return transposed.relu_().t()


class Bfloat16Linear(nn.Module):
    """Replaces an `nn.Linear` on the CPU: bfloat16 weights, float32 sums.

    The product of a row does not depend on the number of rows, to the last bit.

    Args:
        linear: not modified; its weight is not kept.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().bfloat16()
        # In the order in which the kernels read it.
        self._packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_ROWS)
        self._bias = None if linear.bias is None else linear.bias.detach().clone()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, in] of float32 or bfloat16 -> float32 [n, out]; for inference only."""
        return self._product(rows, "none").float()

    def forward_relu(self, rows: torch.Tensor) -> torch.Tensor:
        """As `forward`, followed by ReLU; bfloat16."""
        return self._product(rows, "relu")

    def _product(self, rows: torch.Tensor, then: str) -> torch.Tensor:
        num_rows = len(rows)
        filled = rows.new_empty((padded_rows(num_rows), rows.shape[1]), dtype=torch.bfloat16)
        filled[:num_rows] = rows
        filled[num_rows:] = 0.0
        return product(filled, self._packed, self._bias, then)[:num_rows]


def linear_relu(linear: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Applies a linear layer of any kind, then ReLU."""
    if isinstance(linear, OneDnnLinear | Bfloat16Linear):
        return linear.forward_relu(rows)
    product: torch.Tensor = linear(rows)
    return product.relu_()


def use_onednn(module: nn.Module) -> None:
    """Replaces, in place, every linear layer; does nothing without oneDNN."""
    if not has_onednn():
        return
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, OneDnnLinear(child))


def use_bfloat16(module: nn.Module) -> None:
    """Replaces, in place, every linear layer within the module by one in bfloat16.

    Args:
        module: on the CPU, loaded; it calls its linear layers with 2-D input.

    Raises:
        ConfigurationError: this CPU would emulate bfloat16, or this build lacks oneDNN.
    """
    require_bfloat16()
    replace_linears(module, Bfloat16Linear)


def require_bfloat16() -> None:
    """Checks that products in bfloat16 gain anything.

    Raises:
        ConfigurationError: this CPU would emulate bfloat16, or this build lacks oneDNN.
    """
    if not (multiplies_bfloat16() and has_onednn()):
        raise ConfigurationError(
            "bfloat16 needs a CPU with AVX512-BF16 or AMX; use float32, int8, or auto, which "
            "chooses bfloat16 where the CPU has it"
        )


def has_onednn() -> bool:
    """Whether this build of PyTorch can call oneDNN's linear layer."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # PyTorch's gap
    return bool(available) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(
    rows: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    then: str = "none",
) -> torch.Tensor:
    """rows [n, in] @ weight [out, in]^T + bias, in the type of rows; `then` may be "relu"."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, then, [], "")
    return found
