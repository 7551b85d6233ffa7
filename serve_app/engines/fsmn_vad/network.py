"""The FSMN network of FSMN-VAD: a causal deep memory network.

Source: Zhang et al., "Deep-FSMN for Large Vocabulary Continuous Speech Recognition",
arXiv:1803.05030; parameter names are those of FunASR's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from serve_app.core.errors import PackCorrupt
from serve_app.engines.paraformer.onednn import has_onednn, product
from serve_app.packs.pack import PackContents, load_into
from serve_app.scheduling.preemption import yield_point

BLOCK_FRAMES = 1024
"""Frames per call in the middle of a recording: 10.24 s, 1.4 times as fast as calls of 2.56 s.

oneDNN is faster than MKL but caches a kernel per row count, so that only these calls use it.
"""

FsmnState: TypeAlias = tuple[torch.Tensor, ...]
"""Past frames of each layer: [(lorder - 1) * lstride, proj_dim]."""


@dataclass(frozen=True, slots=True)
class FsmnSize:
    """Dimensions, by their names in the pack's `encoder_conf`."""

    input_dim: int
    input_affine_dim: int
    fsmn_layers: int
    linear_dim: int
    proj_dim: int
    lorder: int
    lstride: int
    output_affine_dim: int
    output_dim: int

    @classmethod
    def of(cls, pack: PackContents) -> FsmnSize:
        """Reads the sizes from a pack.

        Raises:
            PackCorrupt: the pack has another network.
        """
        conf = pack.config.get("encoder_conf")
        if pack.config.get("encoder") != "FSMN" or not isinstance(conf, dict):
            raise PackCorrupt(
                pack.name, "config.yaml has no `encoder: FSMN`", "Use an fsmn-vad pack"
            )
        if int(conf.get("rorder", 0)) > 0:
            raise PackCorrupt(
                pack.name, "its FSMN looks ahead (rorder > 0)", "Use a pack with rorder 0"
            )
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in conf]
        if missing:
            raise PackCorrupt(
                pack.name, f"encoder_conf lacks {', '.join(missing)}", "Fetch the pack again"
            )
        return cls(**{name: int(conf[name]) for name in names})


class _Affine(nn.Module):
    def __init__(
        self, input_dim: int, output_dim: int, *, bias: bool = True, relu: bool = False
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim, bias=bias)
        self._relu = relu
        self._onednn = has_onednn()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.linear.weight, self.linear.bias
        if self._onednn and len(x) == BLOCK_FRAMES:
            return product(x, weight, bias, "relu" if self._relu else "none")
        projected = functional.linear(x, weight, bias)
        return projected.relu_() if self._relu else projected


class _Memory(nn.Module):
    """Adds to each frame a learned weighted sum of itself and past frames."""

    def __init__(self, size: FsmnSize) -> None:
        super().__init__()
        self.conv_left = nn.Conv2d(
            size.proj_dim, size.proj_dim, (size.lorder, 1), groups=size.proj_dim, bias=False
        )
        self._stride = size.lstride

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = torch.cat((past, x))
        # Time as the image's width and channels last: nothing is transposed, 10 % faster.
        mix = functional.conv2d(
            seen[None, None].permute(0, 3, 1, 2),
            self.conv_left.weight.transpose(2, 3),
            dilation=(1, self._stride),
            groups=x.shape[1],
        )
        remembered = mix.permute(0, 2, 3, 1)[0, 0] + x
        return remembered, seen[len(seen) - len(past) :].clone()


class _Layer(nn.Module):
    def __init__(self, size: FsmnSize) -> None:
        super().__init__()
        self.linear = _Affine(size.linear_dim, size.proj_dim, bias=False)
        self.fsmn_block = _Memory(size)
        self.affine = _Affine(size.proj_dim, size.linear_dim, relu=True)

    def forward(self, x: torch.Tensor, past: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, past = self.fsmn_block(self.linear(x), past)
        return self.affine(x), past


class Fsmn(nn.Module):
    """Scores frames block by block, with the same result as in one pass."""

    def __init__(self, size: FsmnSize) -> None:
        super().__init__()
        self._size = size
        self.in_linear1 = _Affine(size.input_dim, size.input_affine_dim)
        self.in_linear2 = _Affine(size.input_affine_dim, size.linear_dim, relu=True)
        self.fsmn = nn.ModuleList(_Layer(size) for _ in range(size.fsmn_layers))
        self.out_linear1 = _Affine(size.linear_dim, size.output_affine_dim)
        self.out_linear2 = _Affine(size.output_affine_dim, size.output_dim)

    def initial_state(self) -> FsmnState:
        """Returns the state before the first frame."""
        frames = (self._size.lorder - 1) * self._size.lstride
        return tuple(torch.zeros(frames, self._size.proj_dim) for _ in self.fsmn)

    def forward(self, features: torch.Tensor, state: FsmnState) -> tuple[torch.Tensor, FsmnState]:
        """Returns probabilities [T, output_dim] of features [T, input_dim], and the next state."""
        x = self.in_linear2(self.in_linear1(features))
        after: list[torch.Tensor] = []
        for layer, past in zip(self.fsmn, state, strict=True):
            yield_point()
            x, past = layer(x, past)
            after.append(past)
        return torch.softmax(self.out_linear2(self.out_linear1(x)), dim=1), tuple(after)

    def silence(
        self, features: torch.Tensor, state: FsmnState, silence_ids: Sequence[int]
    ) -> tuple[torch.Tensor, FsmnState]:
        """Returns the probability of silence, float64 [T], and the next state."""
        probabilities, state = self(features, state)
        return probabilities[:, list(silence_ids)].double().sum(dim=1), state


class _Checkpoint(nn.Module):
    """The layout of FunASR's checkpoint, which names the network `encoder`."""

    def __init__(self, encoder: Fsmn) -> None:
        super().__init__()
        self.encoder = encoder


def load_fsmn(pack: PackContents) -> Fsmn:
    """Builds the network of a pack on the CPU, ready for inference.

    Raises:
        PackIncomplete, PackCorrupt: the checkpoint does not fit config.yaml.
    """
    with torch.device("meta"):
        checkpoint = _Checkpoint(Fsmn(FsmnSize.of(pack)))
    load_into(checkpoint, pack)
    return checkpoint.encoder
