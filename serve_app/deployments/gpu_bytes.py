"""Reads GPU memory for the metrics of a replica that has a model."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.core.stages import StageReadiness
from serve_app.engines.gpu_memory import gpu_memory


def gpu_bytes_of(readiness: StageReadiness) -> Callable[[], tuple[int, int] | None]:
    """Returns what reads the bytes allocated and reserved on the model's device."""

    def read() -> tuple[int, int] | None:
        memory = gpu_memory(readiness.device)
        return None if memory is None else (memory.allocated_bytes, memory.reserved_bytes)

    return read
