"""Replaces the linear layers of a loaded network by others that hold copies of the weights."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


def replace_linears(module: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> None:
    """Replaces, in place, every linear layer within the module.

    Args:
        module: on the CPU, loaded.
        make: returns the replacement, which must not refer to the layer's weight. The weight's
            pages are dropped if it lies in a mapped file.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, make(child))
                _drop_mapped_pages(child.weight)


def release_checkpoint(module: nn.Module) -> None:
    """Copies the remaining parameters, so that the mapped checkpoint can be unmapped.

    Otherwise its pages would count toward this process's memory.
    """
    for parameter in module.parameters():
        parameter.data = parameter.detach().clone()


def _drop_mapped_pages(weight: torch.Tensor) -> None:
    """Drops the resident pages of a weight in a mapped file.

    Otherwise loading would hold the whole float32 file beside the copies. The weight stays
    readable: its pages are read from the file again.
    """
    start = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = weight.data_ptr() + weight.nbytes
    length = (end - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length <= 0 or not _is_file_backed(start, length):
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    # If it fails, the pages only stay resident.
    madvise(start, length, mmap.MADV_DONTNEED)


def _is_file_backed(start: int, length: int) -> bool:
    """Whether the addresses map a file; anonymous memory would lose its content."""
    maps = Path("/proc/self/maps")
    for line in maps.read_text().splitlines() if maps.is_file() else ():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= start and start + length <= last:
            return inode != "0"
    return False
