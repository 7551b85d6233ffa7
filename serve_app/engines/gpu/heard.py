"""What a batch brings back from the device, as one row of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from serve_app.engines.gpu.buckets import Bucket

FINE_FRAMES = 3
"""Frames of the timestamp head for each encoder frame."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A batch on the host; arrays over tokens are packed like the tokens.

    Attributes:
        counts: int32 [sequences].
        broken: int32 [sequences], 1 where a frame's weight was not finite.
        ids: int32 [tokens].
        confidences: float32 [tokens].
        centres: float64 [tokens], in frames.
        fine_alphas: float32 [3 * rows], of packs with a timestamp head.
    """

    counts: npt.NDArray[np.int32]
    broken: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    confidences: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float64]
    fine_alphas: npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class HeardLayout:
    """Where the parts of a `Heard` lie; the widest come first, which aligns all.

    Attributes:
        bucket: gives the sizes.
        fine: there are weights of a timestamp head.
    """

    bucket: Bucket
    fine: bool

    @property
    def num_bytes(self) -> int:
        return self._fine_at + (4 * FINE_FRAMES * self.bucket.rows if self.fine else 0)

    @property
    def _counts_at(self) -> int:
        return 16 * self.bucket.tokens

    @property
    def _fine_at(self) -> int:
        return self._counts_at + 8 * self.bucket.sequences

    def write(
        self,
        results: torch.Tensor,
        counts: torch.Tensor,
        broken: torch.Tensor,
        ids: torch.Tensor,
        confidences: torch.Tensor,
        centres: torch.Tensor,
    ) -> None:
        """Copies the parts, which lie on the same device, into the row of bytes."""
        tokens, sequences = self.bucket.tokens, self.bucket.sequences
        at = 0
        for part, dtype, count in (
            (centres, torch.float64, tokens),
            (confidences, torch.float32, tokens),
            (ids, torch.int32, tokens),
            (counts, torch.int32, sequences),
            (broken, torch.int32, sequences),
        ):
            end = at + count * dtype.itemsize
            results[at:end].view(dtype).copy_(part)
            at = end

    def confidences(self, results: torch.Tensor) -> torch.Tensor:
        """The part of the row with the confidences, float32 [tokens], a view."""
        tokens = self.bucket.tokens
        return results[8 * tokens : 12 * tokens].view(torch.float32)

    def ids(self, results: torch.Tensor) -> torch.Tensor:
        """The part with the ids, int32 [tokens], a view."""
        return results[12 * self.bucket.tokens : self._counts_at].view(torch.int32)

    def counts(self, results: torch.Tensor) -> torch.Tensor:
        """The part with the numbers of tokens, int32 [sequences], a view."""
        end = self._counts_at + 4 * self.bucket.sequences
        return results[self._counts_at : end].view(torch.int32)

    def write_fine(self, results: torch.Tensor, fine_alphas: torch.Tensor) -> None:
        """Adds the timestamp head's weights, float32 [at most 3 * rows]."""
        end = self._fine_at + 4 * len(fine_alphas)
        results[self._fine_at : end].view(torch.float32).copy_(fine_alphas)

    def read(self, row: npt.NDArray[np.uint8]) -> Heard:
        """Takes a row of bytes apart; the arrays are views of it."""
        tokens, sequences = self.bucket.tokens, self.bucket.sequences
        middle = self._counts_at
        return Heard(
            centres=row[: 8 * tokens].view(np.float64),
            confidences=row[8 * tokens : 12 * tokens].view(np.float32),
            ids=row[12 * tokens : middle].view(np.int32),
            counts=row[middle : middle + 4 * sequences].view(np.int32),
            broken=row[middle + 4 * sequences : self._fine_at].view(np.int32),
            fine_alphas=row[self._fine_at : self.num_bytes].view(np.float32) if self.fine else None,
        )
