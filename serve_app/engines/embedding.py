"""Embedding tables without random initialization."""

from __future__ import annotations

import torch
from torch import nn


def empty_embedding(num_rows: int, size: int) -> nn.Embedding:
    """Returns a table whose content is undefined until weights are loaded.

    `nn.Embedding(...)` would draw random values. On the meta device PyTorch decomposes that, for
    which it imports its compiler: more than a second and 70 MB in each process.
    """
    content = torch.empty(num_rows, size)
    table: nn.Embedding = nn.Embedding.from_pretrained(content, freeze=False)  # type: ignore[no-untyped-call]  # PyTorch's gap
    return table
