"""How much of a device a process may take, and how it computes there."""

from __future__ import annotations

import torch

from serve_app.core.errors import ConfigurationError


def claim(device: torch.device, memory_fraction: float | None) -> None:
    """Caps this process's memory, and turns off what rounds float32 to fewer bits.

    Ray's `num_gpus` is a number in its books only; without a cap one replica could
    take what its neighbours on the device were promised. Beyond the cap PyTorch
    raises OutOfMemoryError, and the batch is halved.

    Args:
        device: nothing happens for a CPU.
        memory_fraction: of the device's memory, above 0 and at most 1; None for no cap.

    Raises:
        ConfigurationError: the fraction is out of range.
    """
    if memory_fraction is not None and not 0.0 < memory_fraction <= 1.0:
        raise ConfigurationError(
            f"memory_fraction must be above 0 and at most 1, not {memory_fraction}"
        )
    if device.type != "cuda":
        return
    if memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(memory_fraction, device)
    # TF32 moves where tokens fire; sums of half precision products stay in float32.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
