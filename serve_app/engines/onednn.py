"""Linear layers by oneDNN where PyTorch would call MKL.

On an AMD core with AVX-512, oneDNN's float32 product of a few hundred rows takes
0.85 to 0.9 of MKL's time; with AVX2 they are level. Weights are used where they
lie, so that processes still share the pages of a mapped checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


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
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self.weight, self.bias, "none", [], ""
        )
        return product


def use_onednn(module: nn.Module) -> None:
    """Replaces, in place, every linear layer; does nothing without oneDNN."""
    available = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # PyTorch's gap
    if available and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        replace_linears(module, OneDnnLinear)


def replace_linears(module: nn.Module, replacement: Callable[[nn.Linear], nn.Module]) -> None:
    """Puts something else in the place of every linear layer within the module."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, replacement(child))
