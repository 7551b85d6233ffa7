"""The timestamp head of CifPredictorV3, for BiCif and SeACo packs.

Its recurrent layer needs the lengths on the host, so it runs after the graph. The host knows them
already and does not wait.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from serve_app.engines.cuda.weights import Weights
from serve_app.engines.paraformer.network import TimestampHeadShape
from serve_app.engines.paraformer.timestamps import FINE_FRAMES


class TimestampHead:
    """Computes weights of 20 ms frames in float32.

    Args:
        weights: of the whole network.
        shape: constants of the head.
        size: width of the frames.
    """

    def __init__(self, weights: Weights, shape: TimestampHeadShape, size: int) -> None:
        self._shape = shape
        upsampling = weights.tensor("predictor.upsample_cnn.weight", torch.float32)
        # Kernel equals stride: one matrix product gives three frames per frame. [in, out, 3].
        self._upsample = upsampling.permute(2, 1, 0).reshape(-1, size).contiguous()
        bias = weights.tensor("predictor.upsample_cnn.bias", torch.float32)
        self._upsample_bias = bias.repeat(FINE_FRAMES)
        self._output = weights.linear("predictor.cif_output2", torch.float32)
        self._lstm = _lstm(weights, size) if shape.recurrent else None

    @property
    def after_context(self) -> bool:
        """Whether its input is the predictor's convolved frames instead of the encoder's."""
        return self._shape.after_context

    def forward(self, frames: torch.Tensor, lengths: npt.NDArray[np.int32]) -> torch.Tensor:
        """Returns unscaled weights, float32 [3 * sum of lengths].

        Args:
            frames: float32 [at least the sum of lengths, size].
            lengths: of the sequences, on the host.
        """
        rows = frames[: int(lengths.sum())]
        fine = functional.linear(rows, self._upsample, self._upsample_bias)
        fine = fine.view(FINE_FRAMES * len(rows), -1)
        if self._lstm is not None:
            fine = self._recur(fine, FINE_FRAMES * lengths[lengths > 0].astype(np.int64))
        alphas = torch.sigmoid(functional.linear(fine, self._output.weight, self._output.bias))
        return (alphas[:, 0] * self._shape.smooth_factor - self._shape.noise_threshold).relu_()

    def _recur(self, fine: torch.Tensor, lengths: npt.NDArray[np.int64]) -> torch.Tensor:
        if self._lstm is None or len(lengths) == 0:
            return fine
        order, batch_sizes = time_major(lengths)
        index = torch.from_numpy(order)
        if fine.device.type == "cuda":
            # A copy from pageable memory would wait for all work enqueued before.
            index = index.pin_memory().to(fine.device, non_blocking=True)
        packed = PackedSequence(fine[index], torch.from_numpy(batch_sizes))
        output, _ = self._lstm(packed)
        ordered = torch.empty_like(output.data)
        ordered[index] = output.data
        return ordered


def time_major(
    lengths: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the row order of PyTorch's packed sequences, for sequences laid end to end.

    Args:
        lengths: each at least 1.

    Returns:
        Rows by step, longer sequences first, and the number of rows at each step.
    """
    starts = np.cumsum(lengths) - lengths
    longest_first = np.argsort(-lengths, kind="stable")
    rank = np.empty_like(longest_first)
    rank[longest_first] = np.arange(len(lengths))
    step = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    order = np.lexsort((np.repeat(rank, lengths), step))
    return order.astype(np.int64), np.bincount(step).astype(np.int64)


def _lstm(weights: Weights, size: int) -> nn.LSTM:
    with torch.device("meta"):
        lstm = nn.LSTM(size, size, bidirectional=True)
    state = {
        name: weights.tensor(f"predictor.blstm.{name}", torch.float32) for name in lstm.state_dict()
    }
    lstm.load_state_dict(state, assign=True)
    lstm.requires_grad_(False).eval()
    lstm.flatten_parameters()
    return lstm
