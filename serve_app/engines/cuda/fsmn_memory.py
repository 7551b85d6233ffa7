"""The FSMN memory: a depthwise convolution that stays inside each sequence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

import torch

from serve_app.engines.cuda.sequence_layout import SequenceLayout, shifted

_LOG = logging.getLogger(__name__)

FsmnMemory: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, SequenceLayout, int, torch.Tensor | None, torch.Tensor | None],
    torch.Tensor,
]
"""(values [rows, dim], taps [kernel, dim] in float32, layout, number of left taps,
addend [rows, dim] or None, bias [dim] or None) to [rows, dim]: the sum in float32 of the
convolved values, the values, the addend and the bias."""

_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def fsmn_memory_reference(
    values: torch.Tensor,
    taps: torch.Tensor,
    sequence_layout: SequenceLayout,
    left: int,
    addend: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Reference: one shifted copy per tap."""
    summed = values.float()
    if addend is not None:
        summed = summed + addend.float()
    if bias is not None:
        summed = summed + bias.float()
    convolved = torch.zeros_like(summed)
    for tap, weights in enumerate(taps):
        convolved = convolved + shifted(values, sequence_layout, tap - left).float() * weights
    return (summed + convolved).to(values.dtype)


def choose_fsmn_memory(device: torch.device, dtype: torch.dtype) -> FsmnMemory:
    """Returns the fused kernel where Triton runs and is accurate, else the reference."""
    if device.type == "cpu":
        return fsmn_memory_reference
    try:
        from serve_app.engines.cuda.fsmn_memory_kernel import fsmn_memory_fused

        error = probe(fsmn_memory_fused, device, dtype)
    except Exception as problem:  # Triton fails in many ways: no compiler, no driver
        _LOG.warning("no fused FSMN kernel on %s: %r; using the slower reference", device, problem)
        return fsmn_memory_reference
    if error <= _TOLERANCE[dtype]:
        return fsmn_memory_fused
    _LOG.warning(
        "the fused FSMN kernel deviates by %.3g on %s in %s; not used", error, device, dtype
    )
    return fsmn_memory_reference


@torch.inference_mode()
def probe(fsmn_memory: FsmnMemory, device: torch.device, dtype: torch.dtype) -> float:
    """Returns the largest difference from the reference, with empty sequences and padding."""
    from serve_app.engines.cuda.sequence_layout import lay_out

    generator = torch.Generator().manual_seed(0)
    lengths = (5, 0, 1, 40, 11, 0)
    num_rows, dim, kernel = 96, 48, 11
    sequence_layout = lay_out(torch.tensor(lengths, device=device), num_rows, 64)

    def rows() -> torch.Tensor:
        drawn = torch.randn(num_rows, 3 * dim, generator=generator)
        drawn[sum(lengths) :] = torch.nan
        # A slice, as the values of an attention layer are.
        return drawn.to(device, dtype)[:, dim : 2 * dim]

    taps = torch.randn(kernel, dim, generator=generator).to(device)
    bias = torch.randn(dim, generator=generator).to(device, dtype)
    values, addend = rows(), rows()
    largest = 0.0
    for left, extra, offset in ((5, addend, bias), (10, None, bias), (0, addend, None)):
        found = fsmn_memory(values, taps, sequence_layout, left, extra, offset)
        expected = fsmn_memory_reference(values, taps, sequence_layout, left, extra, offset)
        difference = (found.float() - expected.float())[sequence_layout.filled].abs().max()
        largest = max(largest, float(torch.nan_to_num(difference, nan=torch.inf)))
    return largest
