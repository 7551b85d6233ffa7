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

# Up to this many rows the product is transposed.
_FEW_ROWS = 160
# The width of a vector register, which the kernels fill up anyway.
_VECTOR_ROWS = 16
_STEPS = ((_FEW_ROWS, _VECTOR_ROWS), (256, 32), (768, 64), (896, 32), (1024, 16))


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


def linear_relu(linear: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Applies a linear layer of any kind, then ReLU."""
    if isinstance(linear, OneDnnLinear):
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
    """rows [n, in] @ weight [out, in]^T + bias, float32; `then` may be "relu"."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, then, [], "")
    return found
