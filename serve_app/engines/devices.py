"""Where an engine computes, and with how many threads."""

from __future__ import annotations

import torch

from serve_app.core.errors import DeviceUnavailable


def open_device(name: str) -> torch.device:
    """Returns exactly the device that is asked for: an engine never moves to another in silence.

    Args:
        name: as PyTorch writes it: `cpu`, `cuda`, `cuda:1`. `cuda` is the first that
            this process sees.

    Returns:
        The device, with its number where it is a GPU.

    Raises:
        DeviceUnavailable: this machine, or this build of PyTorch, does not have it.
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


def limit_threads(num_threads: int) -> None:
    """Sets PyTorch's intra-op threads for this process.

    PyTorch's default is one per core of the machine, which several replicas on
    one machine turn into threads that wait for each other.
    """
    torch.set_num_threads(num_threads)
