"""Compiles oneDNN's kernels while a recognizer is loaded."""

from __future__ import annotations

import ctypes

import torch

from serve_app.engines.paraformer.onednn import padded_rows
from serve_app.engines.paraformer.packing import PackedSequences
from serve_app.engines.paraformer.sanm import SanmEncoder

_MOST_ROWS = 1024
_SEQUENCE_ROWS = 64


@torch.inference_mode()
def compile_kernels(encoder: SanmEncoder) -> None:
    """Runs a layer on each padded row count of usual batches.

    The layers share kernels. Kernels that are allocated later, between the large buffers of
    batches, fragment the heap: the large pack would take another 100 MB in its first hours.
    """
    if not len(encoder.encoders):
        return
    device = torch.device("cpu")
    for num_rows in sorted(
        {padded_rows(count) for count in range(1, _MOST_ROWS + 1)}, reverse=True
    ):
        whole, rest = divmod(num_rows, _SEQUENCE_ROWS)
        layout = PackedSequences([_SEQUENCE_ROWS] * whole + [rest] * (rest > 0), device)
        frames = torch.zeros(num_rows, encoder.shape.size)
        encoder.encoders[0](frames, layout, encoder.shape.conv_buffer(layout))
    _shrink_heap()


def _shrink_heap() -> None:
    """Returns free heap memory to the system, where libc supports it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
