"""SAN-M layers on a static number of packed rows; see `engines.paraformer.sanm` for the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional

from serve_app.engines.cuda.attention import Attention, choose_attention
from serve_app.engines.cuda.buckets import LONGEST_ROWS
from serve_app.engines.cuda.fsmn_memory import FsmnMemory, choose_fsmn_memory
from serve_app.engines.cuda.sequence_layout import SequenceLayout
from serve_app.engines.cuda.weights import Linear, Norm, Watch, Weights
from serve_app.engines.paraformer.sanm import SanmShape, sinusoids

_NORM_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class Kernels:
    """The attention and FSMN kernels of a device."""

    attend: Attention
    fsmn_memory: FsmnMemory


def choose_kernels(device: torch.device, dtype: torch.dtype, shape: SanmShape) -> Kernels:
    """Returns the fastest kernels that are accurate on this device."""
    head_size = shape.size // shape.num_heads
    return Kernels(
        choose_attention(device, dtype, shape.num_heads, head_size),
        choose_fsmn_memory(device, dtype),
    )


def linear(rows: torch.Tensor, layer: Linear) -> torch.Tensor:
    return functional.linear(rows, layer.weight, layer.bias)


def linear_relu(rows: torch.Tensor, layer: Linear) -> torch.Tensor:
    """Linear layer and ReLU; on a GPU the ReLU is fused into the matrix product."""
    if layer.bias is None or rows.device.type == "cpu":
        return linear(rows, layer).relu_()
    fused: torch.Tensor = torch.ops.aten._addmm_activation(layer.bias, rows, layer.weight.t())
    return fused


def normed(rows: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Layer norm; PyTorch computes mean and variance in float32 for any dtype of the rows."""
    return functional.layer_norm(rows, rows.shape[1:], norm.weight, norm.bias, _NORM_EPS)


class EncoderLayer:
    """Self-attention with memory, then feed-forward.

    Args:
        weights: of the whole network.
        name: of this layer.
        shape: sizes.
        kernels: of the device.
        residual: False where the width changes.
    """

    def __init__(
        self, weights: Weights, name: str, shape: SanmShape, kernels: Kernels, residual: bool
    ) -> None:
        self.name = name
        self._shape = shape
        self._kernels = kernels
        self._residual = residual
        self._norm1 = weights.norm(f"{name}.norm1")
        self._qkv = weights.linear(f"{name}.self_attn.linear_q_k_v")
        self._out = weights.linear(f"{name}.self_attn.linear_out")
        self._taps = weights.taps(f"{name}.self_attn.fsmn_block.weight")
        self._norm2 = weights.norm(f"{name}.norm2")
        self._w1 = weights.linear(f"{name}.feed_forward.w_1")
        self._w2 = weights.linear(f"{name}.feed_forward.w_2")

    def forward(self, rows: torch.Tensor, sequence_layout: SequenceLayout) -> torch.Tensor:
        size, num_heads = self._shape.size, self._shape.num_heads
        projected = linear(normed(rows, self._norm1), self._qkv)
        query, key, value = projected.view(len(rows), 3, num_heads, -1).unbind(dim=1)
        heads = self._kernels.attend(query, key, value, sequence_layout, sequence_layout)
        # FSMN memory, residual and the bias of the output layer in one pass; the product is
        # then added in place.
        hidden = self._kernels.fsmn_memory(
            projected[:, 2 * size :],
            self._taps,
            sequence_layout,
            self._shape.left,
            rows if self._residual else None,
            self._out.bias,
        )
        hidden.addmm_(heads, self._out.weight.t())
        inner = linear_relu(normed(hidden, self._norm2), self._w1)
        return linear(inner, self._w2).add_(hidden)


class Encoder:
    """FunASR's `SANMEncoder` with sinusoidal positions.

    Args:
        weights: of the whole network.
        shape: sizes.
        input_size: width of the input.
        kernels: of the device.
    """

    def __init__(
        self, weights: Weights, shape: SanmShape, input_size: int, kernels: Kernels
    ) -> None:
        names = ["encoders0.0", *(f"encoders.{index}" for index in range(shape.num_blocks - 1))]
        widths = [input_size, *(shape.size for _ in names[1:])]
        self._dtype = weights.dtype
        self._scale = math.sqrt(shape.size)
        self._input_size = input_size
        self._layers = [
            EncoderLayer(weights, f"encoder.{name}", shape, kernels, residual=width == shape.size)
            for name, width in zip(names, widths, strict=True)
        ]
        self._after_norm = weights.norm("encoder.after_norm")
        self._positions: dict[int, torch.Tensor] = {}

    def forward(
        self, features: torch.Tensor, sequence_layout: SequenceLayout, watch: Watch | None = None
    ) -> torch.Tensor:
        """Maps float32 [rows, input_size] to [rows, size] in the compute dtype."""
        table = self._table(sequence_layout.longest, features.device)
        hidden = (features * self._scale + table[sequence_layout.position]).to(self._dtype)
        for layer in self._layers:
            hidden = layer.forward(hidden, sequence_layout)
            if watch is not None:
                watch(layer.name, hidden, sequence_layout.filled)
        return normed(hidden, self._after_norm)

    def _table(self, longest: int, device: torch.device) -> torch.Tensor:
        """Returns positions from 1 on; a table is never replaced, since graphs read it."""
        size = max(LONGEST_ROWS, 1 << (longest - 1).bit_length())
        if size not in self._positions:
            self._positions[size] = sinusoids(size, self._input_size).to(device)
        return self._positions[size]


class DecoderLayer:
    """Feed-forward, FSMN memory and cross-attention; the last two are optional.

    Args:
        weights: of the whole network.
        name: of this layer.
        left: number of left taps of the memory.
        num_heads: of the cross-attention.
        kernels: of the device.
    """

    def __init__(
        self, weights: Weights, name: str, left: int, num_heads: int, kernels: Kernels
    ) -> None:
        self.name = name
        self._left = left
        self._num_heads = num_heads
        self._kernels = kernels
        self._norm1 = weights.norm(f"{name}.norm1")
        self._w1 = weights.linear(f"{name}.feed_forward.w_1")
        self._inner_norm = weights.norm(f"{name}.feed_forward.norm")
        self._w2 = weights.linear(f"{name}.feed_forward.w_2")
        memory = f"{name}.self_attn.fsmn_block.weight"
        self._has_memory = weights.has(memory)
        if self._has_memory:
            self._norm2 = weights.norm(f"{name}.norm2")
            self._taps = weights.taps(memory)
        self._has_attention = weights.has(f"{name}.src_attn.linear_q.weight")
        if self._has_attention:
            self._norm3 = weights.norm(f"{name}.norm3")
            self._query = weights.linear(f"{name}.src_attn.linear_q")
            self._key_value = weights.linear(f"{name}.src_attn.linear_k_v")
            self._out = weights.linear(f"{name}.src_attn.linear_out")

    def forward(
        self,
        rows: torch.Tensor,
        frames: torch.Tensor,
        tokens: SequenceLayout,
        sequence_layout: SequenceLayout,
    ) -> torch.Tensor:
        inner = normed(linear_relu(normed(rows, self._norm1), self._w1), self._inner_norm)
        hidden = linear(inner, self._w2)
        if self._has_memory:
            values = normed(hidden, self._norm2)
            hidden = self._kernels.fsmn_memory(values, self._taps, tokens, self._left, rows, None)
        if self._has_attention:
            query = linear(normed(hidden, self._norm3), self._query)
            key_value = linear(frames, self._key_value)
            key, value = key_value.view(len(frames), 2, self._num_heads, -1).unbind(dim=1)
            heads = self._kernels.attend(
                query.view(len(rows), self._num_heads, -1), key, value, tokens, sequence_layout
            )
            hidden = linear(heads, self._out).add_(hidden)
        return hidden


class Decoder:
    """FunASR's `ParaformerSANMDecoder`, non-autoregressive.

    Args:
        weights: of the whole network.
        shape: sizes.
        num_attention_blocks: layers with cross-attention.
        kernels: of the device.
    """

    def __init__(
        self, weights: Weights, shape: SanmShape, num_attention_blocks: int, kernels: Kernels
    ) -> None:
        num_rest = max(shape.num_blocks - num_attention_blocks, 0)
        # FunASR applies the shift only to the layers that have cross-attention.
        centered = (shape.kernel_size - 1) // 2
        names = [
            *((f"decoders.{index}", shape.left) for index in range(num_attention_blocks)),
            *((f"decoders2.{index}", centered) for index in range(num_rest)),
            ("decoders3.0", centered),
        ]
        self._layers = [
            DecoderLayer(weights, f"decoder.{name}", left, shape.num_heads, kernels)
            for name, left in names
        ]
        self._after_norm = weights.norm("decoder.after_norm")
        # Float32: in bfloat16 the scores of similar words would be equal.
        self._output = weights.linear("decoder.output_layer", torch.float32)

    def forward(
        self,
        embeddings: torch.Tensor,
        frames: torch.Tensor,
        tokens: SequenceLayout,
        sequence_layout: SequenceLayout,
        watch: Watch | None = None,
    ) -> torch.Tensor:
        """Returns the states before the output layer, [tokens, size] in the compute dtype."""
        hidden = embeddings.to(frames.dtype)
        for layer in self._layers:
            hidden = layer.forward(hidden, frames, tokens, sequence_layout)
            if watch is not None:
                watch(layer.name, hidden, tokens.filled)
        return normed(hidden, self._after_norm)

    def classify(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the best entry of each row, int32, and its probability, float32."""
        parts = [self._classify(rows) for rows in torch.split(states.float(), _CLASSIFIED_ROWS)]
        ids, confidences = zip(*parts, strict=True)
        return torch.cat(ids), torch.cat(confidences)

    def score(self, states: torch.Tensor) -> torch.Tensor:
        """Returns logits, float32 [rows, vocabulary], of float32 states; large for many rows."""
        return linear(states, self._output)

    def _classify(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.score(rows)
        best = logits.max(dim=-1)
        # The probability of one entry needs no log_softmax over the vocabulary.
        confidences = torch.exp(best.values - torch.logsumexp(logits, dim=-1))
        return best.indices.to(torch.int32), confidences


_CLASSIFIED_ROWS = 2048  # bounds the memory of vocabulary scores
