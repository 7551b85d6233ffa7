"""Continuous integrate-and-fire: from encoder frames to one embedding a token.

Each frame gets a weight of at least 0. Each time the running sum of an utterance passes a whole
number, a token fires; its embedding is the weighted sum of the frames since the previous one.

Source: Dong and Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech
Recognition" (2020); rounding follows FunASR 1.4.16 on one utterance alone
(`models/paraformer/cif_predictor.py`, `models/bicif_paraformer/cif_predictor.py`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from serve_app.engines.paraformer.cif_fire import CifShape, Integration, fire
from serve_app.engines.paraformer.packing import ConvBuffer, PackedSequences

__all__ = ["CifPredictor", "CifShape", "Integration", "embed_tokens", "integrate"]


class CifPredictor(nn.Module):
    """Computes the weights of the frames."""

    def __init__(self, shape: CifShape) -> None:
        super().__init__()
        self.shape = shape
        self.cif_conv1d = nn.Conv1d(shape.size, shape.size, shape.left + shape.right + 1)
        self.cif_output = nn.Linear(shape.size, 1)

    def forward(self, frames: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        """Returns float32 [layout.total], each at least 0."""
        context = self.context(frames.float(), layout)
        alphas = torch.sigmoid(self.cif_output(context))[:, 0]
        return torch.relu(alphas * self.shape.smooth_factor - self.shape.noise_threshold)

    def context(self, frames: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        """Returns the convolution of each frame and its neighbors, [layout.total, size]."""
        conv_buffer = ConvBuffer(layout, self.shape.size, self.shape.left, self.shape.right)
        return conv_buffer.convolve(frames, self.cif_conv1d.weight, self.cif_conv1d.bias).relu_()


def integrate(alphas: torch.Tensor, shape: CifShape, sequential: bool) -> Integration:
    """Integrates the weights of one utterance.

    Args:
        alphas: float32 [T] on the CPU.
        shape: constants of the predictor.
        sequential: see `fire`.
    """
    num_frames = alphas.shape[0]
    if shape.tail_threshold > 0.0:
        # The tail lets a nearly complete last token fire.
        alphas = torch.cat([alphas, alphas.new_full((1,), shape.tail_threshold)])
    # Same shape, dtype and reduction as in FunASR: the floor depends on the last bit.
    total = alphas[None].sum(dim=-1)
    count = torch.floor(total) if shape.tail_threshold > 0.0 else torch.round(total)
    return fire(alphas.numpy(), num_frames, int(count.item()), shape.threshold, sequential)


def embed_tokens(
    frames: torch.Tensor, layout: PackedSequences, integrations: list[Integration]
) -> torch.Tensor:
    """Sums the frames of each token.

    Args:
        frames: packed encoder frames, [layout.total, size].
        layout: frames of each utterance.
        integrations: one per utterance.

    Returns:
        [sum of num_tokens, size], utterance after utterance, float32.
    """
    sizes = [
        item.num_tokens * length for item, length in zip(integrations, layout.lengths, strict=True)
    ]
    bases = np.cumsum([0, *sizes])[:-1]
    cells = [
        base + item.tokens * length + item.frames
        for base, item, length in zip(bases, integrations, layout.lengths, strict=True)
    ]
    # One transfer per batch; no cell is written twice, so the result is exact.
    index = torch.from_numpy(np.concatenate(cells)).to(frames.device)
    shares = torch.from_numpy(np.concatenate([item.shares for item in integrations]))
    matrix = torch.zeros(sum(sizes), device=frames.device)
    matrix[index] = shares.to(frames.device)
    packed = frames.float()
    rows = [
        part.view(item.num_tokens, end - start) @ packed[start:end]
        for part, item, (start, end) in zip(
            torch.split(matrix, sizes), integrations, layout.spans, strict=True
        )
    ]
    return torch.cat(rows)
