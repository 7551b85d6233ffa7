"""How many threads a process computes with."""

from __future__ import annotations

import torch


def limit_threads(num_threads: int) -> None:
    """Sets PyTorch's intra-op threads for this process.

    PyTorch's default is one per core of the machine, which several replicas on
    one machine turn into threads that wait for each other.
    """
    torch.set_num_threads(num_threads)
