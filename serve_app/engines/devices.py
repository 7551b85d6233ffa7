"""The device and the threads of engines on PyTorch."""

from __future__ import annotations

import torch

from serve_app.core.errors import ConfigurationError, DeviceUnavailable


def open_device(name: str) -> torch.device:
    """Returns the device of this name; there is no silent fallback to another one.

    Args:
        name: `cpu`, `cuda` or `cuda:1`, as in PyTorch. `cuda` is the first GPU that this process
            sees.

    Returns:
        The device; a GPU always has its index.

    Raises:
        DeviceUnavailable: this machine, or this build of PyTorch, lacks it.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(name, "it is not a device of PyTorch") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceUnavailable(name, "engines run on cpu and cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceUnavailable(name, f"PyTorch finds {torch.cuda.device_count()} CUDA devices")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def check_dtype(dtype: str, device: torch.device, supported: tuple[str, ...]) -> None:
    """Checks that a CPU engine can compute in this dtype.

    Raises:
        ConfigurationError: the dtype is unknown, or runs on CPUs only and the device is not one.
    """
    if dtype not in supported:
        raise ConfigurationError(f"dtype {dtype!r} is not supported; use {' or '.join(supported)}")
    if dtype != "float32" and device.type != "cpu":
        raise ConfigurationError(
            f"dtype {dtype} runs on the cpu, not on {device}; use float32 there"
        )


def limit_threads(num_threads: int) -> None:
    """Sets PyTorch's intra-op threads for this process.

    PyTorch's default is one thread per core, which oversubscribes a machine with several
    replicas.
    """
    torch.set_num_threads(num_threads)
