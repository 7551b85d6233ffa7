"""GPU memory of this process."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Bytes allocated for tensors, and bytes reserved by PyTorch's allocator."""

    allocated_bytes: int
    reserved_bytes: int


def gpu_memory(device: str) -> GpuMemory | None:
    """Returns this process's memory on the device; None for a CPU."""
    if not device.startswith("cuda"):
        return None
    # Imported here because replicas of engines without PyTorch call this too.
    import torch

    return GpuMemory(torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device))
