"""Continuous integrate-and-fire for a whole batch on the device.

The rule is that of `paraformer.cif_fire`: sums are computed in float64 and rounded to float32 at
the same point, so that the same frames fire. FunASR's CifPredictorV3 adds in float32 frame by
frame. There a rounding error may delay a token by one frame, whose share is then about 1e-6, so
that both give the same embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from serve_app.engines.cuda.sequence_layout import SequenceLayout, lay_out, shifted
from serve_app.engines.cuda.weights import Weights
from serve_app.engines.paraformer.cif import CifShape


@dataclass(frozen=True, slots=True)
class FiredTokens:
    """The tokens of a batch.

    Attributes:
        counts: int64 [sequences]; their sum may exceed the bucket's tokens.
        broken: bool [sequences], True if a weight is not finite; such a sequence has no tokens.
        sequence_layout: of the tokens, cut off at the bucket's size.
        embeddings: float32 [tokens, size].
        alphas: float32 [rows], the weights that were added up; 0 in padding and broken rows.
    """

    counts: torch.Tensor
    broken: torch.Tensor
    sequence_layout: SequenceLayout
    embeddings: torch.Tensor
    alphas: torch.Tensor


class Predictor:
    """Computes the weights of the frames and fires the tokens, all in float32.

    Args:
        weights: of the whole network.
        shape: constants of the predictor.
    """

    def __init__(self, weights: Weights, shape: CifShape) -> None:
        self._shape = shape
        convolution = weights.tensor("predictor.cif_conv1d.weight", torch.float32)
        # [out, in, kernel] to [out, kernel * in]: one matrix product over stacked neighbors.
        self._context = convolution.permute(0, 2, 1).reshape(len(convolution), -1).contiguous()
        self._context_bias = weights.tensor("predictor.cif_conv1d.bias", torch.float32)
        self._output = weights.linear("predictor.cif_output", torch.float32)

    def max_tokens(self, num_frames: int) -> int:
        """Returns the upper bound on the tokens of a sequence with this many frames."""
        return int(num_frames * max(self._shape.smooth_factor, 1.0)) + 1

    def context(self, frames: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
        """Returns the convolution of each frame and its neighbors, [rows, size]."""
        shifts = range(-self._shape.left, self._shape.right + 1)
        stacked = torch.cat([shifted(frames, sequence_layout, by) for by in shifts], dim=1)
        return functional.linear(stacked, self._context, self._context_bias).relu_()

    def alphas(self, frames: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
        """Returns float32 [rows], each at least 0; not finite where the frames are not."""
        context = self.context(frames, sequence_layout)
        scores = functional.linear(context, self._output.weight, self._output.bias)
        shape = self._shape
        return (torch.sigmoid(scores[:, 0]) * shape.smooth_factor - shape.noise_threshold).relu_()

    def fire(
        self, frames: torch.Tensor, sequence_layout: SequenceLayout, max_tokens: int
    ) -> FiredTokens:
        """Adds up the weights and embeds the tokens.

        Args:
            frames: float32 [rows, size].
            sequence_layout: of the frames.
            max_tokens: capacity for the tokens of all sequences.
        """
        alphas = self.alphas(frames, sequence_layout)
        broken = self._find_broken(alphas, sequence_layout)
        # A NaN would make the sums of all later sequences NaN.
        usable = sequence_layout.filled & ~broken[sequence_layout.sequence]
        alphas = alphas.masked_fill(~usable, 0.0)
        sums = _sums_per_sequence(alphas, sequence_layout)
        counts = self._count_tokens(sums, sequence_layout) * ~broken
        tokens = lay_out(counts, max_tokens, self.max_tokens(sequence_layout.longest))
        embeddings = _embed_tokens(alphas, sums, frames, sequence_layout, counts, max_tokens)
        return FiredTokens(counts, broken, tokens, embeddings, alphas)

    def _find_broken(self, alphas: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
        bad = (~torch.isfinite(alphas) & sequence_layout.filled).to(torch.int32)
        found = bad.new_zeros(sequence_layout.num_sequences).index_add_(
            0, sequence_layout.sequence, bad
        )
        return found > 0

    def _count_tokens(self, sums: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
        """Returns int64 [sequences]; the tail weight lets a nearly complete last token fire."""
        lengths = sequence_layout.lengths
        last = (sequence_layout.offsets[1:].long() - 1).clamp_min_(0)
        totals = sums[last].masked_fill_(lengths == 0, 0.0)
        if self._shape.tail_threshold > 0.0:
            totals = (totals + self._shape.tail_threshold).float()
            return torch.floor(totals).long() * (lengths > 0)
        return torch.round(totals.float()).long()


def _sums_per_sequence(alphas: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
    """Returns the running sums within each sequence, float64 [rows]."""
    sums = torch.cumsum(alphas.double(), dim=0)
    before = torch.cat([sums.new_zeros(1), sums])[
        sequence_layout.offsets[sequence_layout.sequence].long()
    ]
    return sums - before


def _embed_tokens(
    alphas: torch.Tensor,
    sums: torch.Tensor,
    frames: torch.Tensor,
    sequence_layout: SequenceLayout,
    counts: torch.Tensor,
    max_tokens: int,
) -> torch.Tensor:
    """Sums the frames of each token; a frame at which a token fires is shared with the next."""
    rounded = sums.float()
    whole = torch.floor(rounded)
    before = functional.pad(whole[:-1], (1, 0)).masked_fill_(sequence_layout.position == 0, 0.0)
    fired = (whole > before) & sequence_layout.filled
    fires = torch.cumsum(fired.long(), dim=0)
    start = torch.cat([fires.new_zeros(1), fires])[
        sequence_layout.offsets[sequence_layout.sequence].long()
    ]
    token = fires - start - fired.long()
    rest = (rounded - whole).masked_fill_(~fired, 0.0)

    first_token = (torch.cumsum(counts, dim=0) - counts)[sequence_layout.sequence]
    limit = counts[sequence_layout.sequence]
    size = frames.shape[1]
    # Float64, because the order of atomic additions on a GPU varies.
    embeddings = torch.zeros(max_tokens + 1, size, dtype=torch.float64, device=frames.device)
    has_tokens = sequence_layout.filled & (limit > 0)
    content = frames.masked_fill(~has_tokens[:, None], 0.0)
    for own, shares in ((token, alphas - rest), (token + 1, rest)):
        kept = (own < limit) & sequence_layout.filled & (shares != 0.0)
        # The extra last row collects what belongs to no token.
        target = (first_token + own).masked_fill_(~kept, max_tokens).clamp_max_(max_tokens)
        weight = shares.masked_fill(~kept, 0.0).double()[:, None]
        embeddings.index_add_(0, target, content * weight)
    return embeddings[:max_tokens].float()
