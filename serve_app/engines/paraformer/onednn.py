"""Linear layers by oneDNN where PyTorch would call MKL.

On a Zen 4 core oneDNN's float32 product of several hundred rows takes nine
tenths of MKL's time. For fewer rows the product is turned round, W x^T instead
of x W^T: the weights, which come from memory, are then read once as they lie and
only the few rows are rearranged, which takes two thirds of MKL's time. Weights
stay where they are, so that processes still share the pages of a mapped file.

oneDNN makes a kernel of about 0.6 MB for each number of rows that it meets, and
keeps a thousand. `padded_rows` leaves it few numbers to meet.
"""

from __future__ import annotations

import torch
from torch import nn

# Up to here a product is turned round.
_FEW_ROWS = 160
# Widths of a vector register; the kernels waste what is left of one anyway.
_VECTOR_ROWS = 16
_STEPS = ((_FEW_ROWS, _VECTOR_ROWS), (256, 32), (768, 64), (896, 32), (1024, 16))


def padded_rows(num_rows: int) -> int:
    """The number of rows that a packed matrix is filled up to: one of few."""
    for limit, step in _STEPS:
        if num_rows <= limit:
            return -(-num_rows // step) * step
    # 16 numbers for each power of 2.
    step = 1 << (num_rows - 1).bit_length() - 5
    return -(-num_rows // step) * step


class OneDnnLinear(nn.Module):
    """Stands in for an `nn.Linear` on the CPU, and shares its parameters.

    Args:
        linear: float32.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]; for inference, gradients do not pass."""
        if len(rows) > _FEW_ROWS:
            return product(rows, self.weight, self.bias)
        turned = product(self.weight, rows)
        if self.bias is None:
            return turned.t().contiguous()
        return torch.add(turned.t(), self.bias, out=rows.new_empty(len(rows), len(turned)))

    def forward_relu(self, rows: torch.Tensor) -> torch.Tensor:
        """As `forward`, with what is below 0 cut off; need not be contiguous."""
        if len(rows) > _FEW_ROWS:
            return product(rows, self.weight, self.bias, "relu")
        turned = product(self.weight, rows)
        if self.bias is not None:
            turned += self.bias[:, None]
        return turned.relu_().t()


def linear_relu(linear: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """A linear layer of any kind, and what is below 0 cut off."""
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
