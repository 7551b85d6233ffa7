"""The results of a batch, copied from the device as one row of bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from serve_app.engines.cuda.buckets import Bucket
from serve_app.engines.paraformer.timestamps import FINE_FRAMES


@dataclass(frozen=True, slots=True)
class Readback:
    """The results of a batch on the host; arrays over tokens are packed like the tokens.

    Attributes:
        counts: int32 [sequences].
        broken: int32 [sequences], 1 where a frame's weight was not finite.
        ids: int32 [tokens].
        confidences: float32 [tokens].
        alphas: float32, the weights from which token times are computed: [3 * rows] of the
            timestamp head, or [rows] of the predictor for packs without one.
    """

    counts: npt.NDArray[np.int32]
    broken: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int32]
    confidences: npt.NDArray[np.float32]
    alphas: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReadbackLayout:
    """The layout of a `Readback` in bytes; every item has 4 bytes.

    Attributes:
        bucket: gives the sizes.
        fine: True if the weights are those of a timestamp head.
    """

    bucket: Bucket
    fine: bool

    @property
    def num_bytes(self) -> int:
        return self._alphas_at + 4 * self.bucket.rows * (FINE_FRAMES if self.fine else 1)

    @property
    def _counts_at(self) -> int:
        return 8 * self.bucket.tokens

    @property
    def _alphas_at(self) -> int:
        return self._counts_at + 8 * self.bucket.sequences

    def write(
        self,
        results: torch.Tensor,
        counts: torch.Tensor,
        broken: torch.Tensor,
        ids: torch.Tensor,
        confidences: torch.Tensor,
    ) -> None:
        """Copies the parts into the row of bytes, on the device."""
        tokens, sequences = self.bucket.tokens, self.bucket.sequences
        at = 0
        for part, dtype, count in (
            (confidences, torch.float32, tokens),
            (ids, torch.int32, tokens),
            (counts, torch.int32, sequences),
            (broken, torch.int32, sequences),
        ):
            end = at + count * dtype.itemsize
            results[at:end].view(dtype).copy_(part)
            at = end

    def confidences(self, results: torch.Tensor) -> torch.Tensor:
        """Returns a view of the confidences, float32 [tokens]."""
        tokens = self.bucket.tokens
        return results[: 4 * tokens].view(torch.float32)

    def ids(self, results: torch.Tensor) -> torch.Tensor:
        """Returns a view of the ids, int32 [tokens]."""
        return results[4 * self.bucket.tokens : self._counts_at].view(torch.int32)

    def counts(self, results: torch.Tensor) -> torch.Tensor:
        """Returns a view of the token counts, int32 [sequences]."""
        end = self._counts_at + 4 * self.bucket.sequences
        return results[self._counts_at : end].view(torch.int32)

    def write_alphas(self, results: torch.Tensor, alphas: torch.Tensor) -> None:
        """Copies the weights, float32, from the first row on."""
        end = self._alphas_at + 4 * len(alphas)
        results[self._alphas_at : end].view(torch.float32).copy_(alphas)

    def read(self, row: npt.NDArray[np.uint8]) -> Readback:
        """Splits a row of bytes into arrays, which are views of it."""
        tokens, sequences = self.bucket.tokens, self.bucket.sequences
        middle = self._counts_at
        return Readback(
            confidences=row[: 4 * tokens].view(np.float32),
            ids=row[4 * tokens : middle].view(np.int32),
            counts=row[middle : middle + 4 * sequences].view(np.int32),
            broken=row[middle + 4 * sequences : self._alphas_at].view(np.int32),
            alphas=row[self._alphas_at : self.num_bytes].view(np.float32),
        )
