"""Parameters on the device, in the type that the layers compute in."""

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
"""Called with a layer's name, its rows, and which of them are no filler."""


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
    """A checkpoint by FunASR's names of parameters, moved over piece by piece.

    Args:
        state: float32 tensors on the CPU.
        device: where to.
        dtype: of the matrices.

    Raises:
        ConfigurationError: from the methods, if a value is beyond the dtype's range.
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
        """One parameter; in the compute dtype unless another one is asked for."""
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
        """A depthwise convolution, [dim, 1, kernel] in the checkpoint: float32 [kernel, dim]."""
        return self.tensor(name, torch.float32)[:, 0].T.contiguous()


class RangeWatch:
    """Remembers how large activations become; a `Watch`.

    Args:
        dtype: what the activations are kept in.
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
        """How many times larger activations could be before they overflow."""
        largest = max(self._largest.values(), default=0.0)
        return float(torch.finfo(self._dtype).max) / max(largest, 1e-30)

    def check_finite(self) -> None:
        """Raises for the first layer with an overflow.

        Raises:
            ConfigurationError: it names the layer.
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
        f"{what}, beyond what {name} holds ({torch.finfo(dtype).max:.3g}); use {others}"
    )
