"""How much of a GPU this process holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes that tensors take, and that PyTorch's allocator has reserved for them."""

    allocated_bytes: int
    reserved_bytes: int


def gpu_memory(device: str) -> GpuMemory | None:
    """Returns this process' memory on the device; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    # A replica of an engine without PyTorch asks, too.
    import torch

    return GpuMemory(torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device))
