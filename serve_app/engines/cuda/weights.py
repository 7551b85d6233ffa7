"""Parameters on the device, in the dtype of the layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from serve_app.core.errors import ConfigurationError

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

Watch: TypeAlias = Callable[[str, torch.Tensor, torch.Tensor], None]
"""Called with a layer's name, its rows, and a mask of the rows that are no padding."""


@dataclass(frozen=True, slots=True)
class Linear:
    """weight [out, in], bias [out] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Norm:
    """weight and bias [dim]."""

    weight: torch.Tensor
    bias: torch.Tensor


class Weights:
    """A checkpoint by FunASR's parameter names, moved to the device tensor by tensor.

    Args:
        state: float32 tensors on the CPU.
        device: the target.
        dtype: of the matrices.

    Raises:
        ConfigurationError: from the methods, if a value exceeds the dtype's range.
    """

    def __init__(
        self, state: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._state = state
        self.device = device
        self.dtype = dtype
        self.num_parameters = sum(tensor.numel() for tensor in state.values())

    def has(self, name: str) -> bool:
        return name in self._state

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Returns one parameter, by default in the compute dtype."""
        dtype = self.dtype if dtype is None else dtype
        tensor = self._state[name]
        largest = float(tensor.abs().max()) if tensor.numel() else 0.0
        if not largest <= torch.finfo(dtype).max:
            raise _out_of_range(f"the weights of {name} reach {largest:.3g}", dtype)
        return tensor.to(self.device, dtype).contiguous()

    def linear(self, name: str, dtype: torch.dtype | None = None) -> Linear:
        bias = f"{name}.bias"
        return Linear(
            self.tensor(f"{name}.weight", dtype),
            self.tensor(bias, dtype) if self.has(bias) else None,
        )

    def norm(self, name: str) -> Norm:
        return Norm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def taps(self, name: str) -> torch.Tensor:
        """Returns a depthwise convolution as float32 [kernel, dim]; the checkpoint has
        [dim, 1, kernel]."""
        return self.tensor(name, torch.float32)[:, 0].T.contiguous()


class RangeWatch:
    """Records the largest activations; a `Watch`.

    Args:
        dtype: of the activations.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._largest: dict[str, float] = {}

    def __call__(self, name: str, rows: torch.Tensor, filled: torch.Tensor) -> None:
        own = rows[filled]
        largest = float(own.abs().max()) if own.numel() else 0.0
        before = self._largest.get(name, 0.0)
        self._largest[name] = largest if math.isnan(largest) else max(before, largest)

    @property
    def headroom(self) -> float:
        """Factor by which activations could grow before they overflow."""
        largest = max(self._largest.values(), default=0.0)
        return float(torch.finfo(self._dtype).max) / max(largest, 1e-30)

    def check_finite(self) -> None:
        """Checks that no layer has overflowed.

        Raises:
            ConfigurationError: one has; the message names the first.
        """
        for name, largest in self._largest.items():
            if not math.isfinite(largest):
                raise _out_of_range(f"the output of {name} is not finite", self._dtype)


def _out_of_range(what: str, dtype: torch.dtype) -> ConfigurationError:
    name = str(dtype).removeprefix("torch.")
    others = "bfloat16 or float32" if dtype == torch.float16 else "float32"
    if dtype == torch.float32:
        return ConfigurationError(f"{what}: the checkpoint is damaged, or not made for this engine")
    return ConfigurationError(
        f"{what}, above the maximum of {name} ({torch.finfo(dtype).max:.3g}); use {others}"
    )
