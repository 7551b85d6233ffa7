"""Linear layers in eight-bit integers, for the CPU.

Activations are scaled row by row, so that a frame's or a token's numbers depend
on nothing but itself, and sums of integers are exact in any order: a result in
int8 does not depend on batch-mates any more than one in float32. A scale for a
whole call, which PyTorch's own dynamic quantization uses, would break that.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from serve_app.core.errors import ConfigurationError

# CPUs without VNNI add pairs of u8 * s8 products in 16 bits, which saturate at
# 32767: 2 * 255 * 64 stays below. With 127, such CPUs would give other results.
_WEIGHT_LIMIT = 64
_ACTIVATION_LIMIT = 127
# oneDNN is quick with unsigned activations only (PyTorch 2.13): 128 stands for 0.
_ZERO_POINT = 128
_SMALLEST = 1e-30
_BLOCK_ROWS = 64


class QuantizedLinear(nn.Module):
    """Stands in for an `nn.Linear`: weights in int8, inputs and outputs in float32.

    Weights have one scale an output channel, activations one a row. A row of
    zeros gives the bias; a row that is not finite gives one that is not finite.

    Args:
        linear: left as it is; its weight is not kept.
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
            1.0,  # the steps come later, row by row
            _ZERO_POINT,
            self._packed,
            self._steps,
            self._zero_points,
            None,  # nor can the bias be added before them
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
    """Each row in whole steps of its own size.

    Args:
        rows: float32 [n, dim].

    Returns:
        codes, uint8 [n, dim], 128 for zero, and the step of each row, float32
        [n, 1]: rows is about (codes - 128) * steps.
    """
    steps = _steps(rows, _ACTIVATION_LIMIT)
    codes = (rows / steps).round_().to(torch.int8).view(torch.uint8)
    # Turning the sign bit adds 128; the direct way to uint8 is not vectorised.
    return codes.bitwise_xor_(_ZERO_POINT), steps


def _pad_to_blocks(codes: torch.Tensor) -> torch.Tensor:
    """Adds rows up to a multiple of 64.

    oneDNN keeps a kernel for each shape that it has met. Batches come in every
    length: without this, a process grew by hundreds of megabytes and spent its
    time on making kernels.
    """
    missing = -len(codes) % _BLOCK_ROWS
    return functional.pad(codes, (0, 0, 0, missing)) if missing else codes


def _steps(rows: torch.Tensor, limit: int) -> torch.Tensor:
    """[n, 1]: what the largest of each row must be divided by to give the limit."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    # A row may be all zeros, and denormal steps would be rounded away.
    return largest.clamp_min_(_SMALLEST).div_(limit)


def quantize_linears(module: nn.Module) -> None:
    """Replaces, in place, every linear layer within the module.

    Args:
        module: on the CPU, loaded; it calls its linear layers with 2-D input.

    Raises:
        ConfigurationError: this CPU or this build of PyTorch cannot do it exactly.
    """
    _check_exact_products()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, QuantizedLinear(child))
                _drop_mapped_pages(child.weight)


def _drop_mapped_pages(weight: torch.Tensor) -> None:
    """Takes a weight that lies in a mapped file out of this process's memory.

    A load would else hold the whole file in float32 beside the codes. The file
    keeps what it holds: whoever reads the weight again gets it from there.
    """
    start = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = weight.data_ptr() + weight.nbytes
    length = (end - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length <= 0 or not _is_file_backed(start, length):
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # Refused, the pages stay: nothing but memory is lost.
    madvise(start, length, mmap.MADV_DONTNEED)


def _is_file_backed(start: int, length: int) -> bool:
    """Whether the addresses are a file's; other memory would lose what it holds."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.is_file() else ():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= start and start + length <= last:
            return inode != "0"
    return False


def release_checkpoint(module: nn.Module) -> None:
    """Copies what parameters are left, so that the mapped file they lie in can go.

    Else its pages, already used for quantizing, would count as this process's.
    """
    for parameter in module.parameters():
        parameter.data = parameter.detach().clone()


def _check_exact_products() -> None:
    """Tries the largest products there can be, whose sums must not saturate."""
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
                f"int8 needs the oneDNN kernels of PyTorch, which are not here: {error}"
            ) from error
    if not torch.allclose(found, expected, atol=1e-3):
        raise ConfigurationError("int8 products saturate on this CPU; use float32")
