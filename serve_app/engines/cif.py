"""Continuous integrate-and-fire: from encoder frames to one embedding a token.

Each frame gets a weight between 0 and 1; the weights are added up along the
utterance, and each time that the sum passes another whole number a token
fires. Its embedding is the weighted sum of the frames since the last one.

Source: Dong and Xu, "CIF: Continuous Integrate-and-Fire for End-to-End Speech
Recognition" (2020); rounding follows FunASR 1.4.16 on one utterance alone
(`models/paraformer/cif_predictor.py`, `models/bicif_paraformer/cif_predictor.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from serve_app.engines.ragged import Ragged, Spaced

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CifShape:
    """Sizes and constants of a predictor; see `predictor_conf` in config.yaml."""

    size: int
    left: int
    right: int
    threshold: float = 1.0
    smooth_factor: float = 1.0
    noise_threshold: float = 0.0
    tail_threshold: float = 0.45


@dataclass(frozen=True, slots=True)
class Integration:
    """How the frames of one utterance add up to tokens.

    Entry e says: frame `frames[e]` has the share `shares[e]` in token `tokens[e]`.
    """

    num_tokens: int
    frames: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]
    shares: FloatArray

    def centres(self) -> npt.NDArray[np.float64]:
        """Where each token's mass is centred, in frames; shape [num_tokens].

        A token without any mass stands where its predecessor does.
        """
        shares = self.shares.astype(np.float64)
        mass = np.bincount(self.tokens, shares, self.num_tokens)
        moment = np.bincount(self.tokens, shares * self.frames, self.num_tokens)
        centres = np.where(mass > 0.0, moment / np.maximum(mass, 1e-12), 0.0)
        return np.maximum.accumulate(centres)


class CifPredictor(nn.Module):
    """The weights of the frames, before anything is added up."""

    def __init__(self, shape: CifShape) -> None:
        super().__init__()
        self.shape = shape
        self.cif_conv1d = nn.Conv1d(shape.size, shape.size, shape.left + shape.right + 1)
        self.cif_output = nn.Linear(shape.size, 1)

    def forward(self, frames: torch.Tensor, layout: Ragged) -> torch.Tensor:
        """Returns float32 [layout.total], each at least 0."""
        context = self.context(frames.float(), layout)
        alphas = torch.sigmoid(self.cif_output(context))[:, 0]
        return torch.relu(alphas * self.shape.smooth_factor - self.shape.noise_threshold)

    def context(self, frames: torch.Tensor, layout: Ragged) -> torch.Tensor:
        """Each frame with its neighbours, [layout.total, size]."""
        spaced = Spaced(layout, self.shape.size, self.shape.left, self.shape.right)
        return spaced.convolve(frames, self.cif_conv1d.weight, self.cif_conv1d.bias).relu_()


def integrate(alphas: torch.Tensor, shape: CifShape, sequential: bool) -> Integration:
    """Adds up the weights of one utterance.

    Args:
        alphas: float32 [T] on the CPU.
        shape: constants of the predictor.
        sequential: True adds in float32, frame by frame, as FunASR's
            CifPredictorV3 does; False in float64 at once, as V2 does. Sums near
            a whole number fire at different frames.
    """
    num_frames = alphas.shape[0]
    if shape.tail_threshold > 0.0:
        # One more frame without content lets a last, nearly full token fire.
        alphas = torch.cat([alphas, alphas.new_full((1,), shape.tail_threshold)])
    # Same shape, dtype and reduction as FunASR's: the floor depends on the last bit.
    total = alphas[None].sum(dim=-1)
    count = torch.floor(total) if shape.tail_threshold > 0.0 else torch.round(total)
    weights = alphas.numpy()
    fired, rest = (
        _fire_sequentially(weights, shape.threshold) if sequential else _fire_at_once(weights)
    )
    return _shares(weights, fired, rest, num_frames, int(count.item()))


def _fire_at_once(weights: FloatArray) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Where tokens fire, and what each frame leaves to the next token."""
    sums = np.cumsum(weights, dtype=np.float64).astype(np.float32)
    whole = np.floor(sums)
    return np.diff(whole, prepend=np.float32(0.0)) > 0, sums - whole


def _fire_sequentially(
    weights: FloatArray, threshold: float
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    fired = np.zeros(weights.shape, dtype=np.bool_)
    rest = np.zeros(weights.shape, dtype=np.float32)
    total = np.float32(0.0)
    for index, weight in enumerate(weights):
        before = total
        total = np.float32(total + weight)
        if total >= threshold:
            fired[index] = True
            rest[index] = weight - (np.float32(1.0) - before)
            total = np.float32(total - np.float32(1.0))
    return fired, rest


def _shares(
    weights: FloatArray,
    fired: npt.NDArray[np.bool_],
    rest: FloatArray,
    num_frames: int,
    num_tokens: int,
) -> Integration:
    """A frame belongs to one token, or is shared by the one that fires and the next."""
    token: npt.NDArray[np.int64] = np.cumsum(fired) - fired
    last = np.flatnonzero(fired)
    frames = np.concatenate([np.arange(len(weights)), last])
    tokens = np.concatenate([token, token[last] + 1])
    shares = np.concatenate([weights - np.where(fired, rest, np.float32(0.0)), rest[last]])
    # What comes after the last token is dropped, and so is the tail: it has no content.
    kept = (tokens < num_tokens) & (frames < num_frames)
    return Integration(
        num_tokens=num_tokens,
        frames=frames[kept].astype(np.int64),
        tokens=tokens[kept].astype(np.int64),
        shares=shares[kept].astype(np.float32),
    )


def embed_tokens(
    frames: torch.Tensor, layout: Ragged, integrations: list[Integration]
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
    # One transfer for the whole batch; no cell is written twice, which keeps it exact.
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
