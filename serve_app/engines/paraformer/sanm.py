"""The SAN-M encoder and the Paraformer decoder, on packed frames.

Parameter names are those of FunASR's checkpoints.

Source: Gao et al., "SAN-M: Memory Equipped Self-Attention for End-to-End Speech
Recognition" (2020), and the behavior of FunASR 1.4.16 (`models/sanm`,
`models/paraformer/decoder.py`) at inference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from serve_app.engines.paraformer.onednn import linear_relu
from serve_app.engines.paraformer.packing import ConvBuffer, PackedSequences, attend
from serve_app.scheduling.preemption import yield_point

_NORM_EPS = 1e-12


@dataclass(frozen=True, slots=True)
class SanmShape:
    """Sizes of a stack of SAN-M layers.

    Attributes:
        size: width of the residual stream.
        num_heads: attention heads; divides size.
        feed_forward_size: inner width of the feed-forward layers.
        num_blocks: layers.
        kernel_size: taps of the memory convolution.
        kernel_shift: shift of the taps toward the past.
    """

    size: int
    num_heads: int
    feed_forward_size: int
    num_blocks: int
    kernel_size: int = 11
    kernel_shift: int = 0

    @property
    def left(self) -> int:
        """Past frames in the memory convolution."""
        return (self.kernel_size - 1) // 2 + max(self.kernel_shift, 0)

    @property
    def right(self) -> int:
        """Future frames in the memory convolution."""
        return self.kernel_size - 1 - self.left

    def conv_buffer(self, layout: PackedSequences) -> ConvBuffer:
        return ConvBuffer(layout, self.size, self.left, self.right)


class FsmnMemory(nn.Module):
    """FSMN memory: each frame plus a depthwise convolution; holds weights only."""

    def __init__(self, size: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size, 1, kernel_size))

    def forward(
        self, onto: torch.Tensor, frames: torch.Tensor, conv_buffer: ConvBuffer
    ) -> torch.Tensor:
        """Adds the memory of `frames` to `onto`, in place."""
        onto += frames
        return conv_buffer.add_convolved(onto, frames, self.weight)


class SanmSelfAttention(nn.Module):
    """Self-attention plus the FSMN memory of the values."""

    def __init__(self, input_size: int, shape: SanmShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.linear_q_k_v = nn.Linear(input_size, 3 * shape.size)
        self.linear_out = nn.Linear(shape.size, shape.size)
        self.fsmn_block = FsmnMemory(shape.size, shape.kernel_size)

    def forward(
        self, frames: torch.Tensor, layout: PackedSequences, conv_buffer: ConvBuffer
    ) -> torch.Tensor:
        query, key, value = self.linear_q_k_v(frames).chunk(3, dim=1)
        heads = attend(query, key, value, self.num_heads, layout, layout)
        attended: torch.Tensor = self.linear_out(heads)
        remembered: torch.Tensor = self.fsmn_block(attended, value, conv_buffer)
        return remembered


class FeedForward(nn.Module):
    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(size, inner_size)
        self.w_2 = nn.Linear(inner_size, size)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.w_2(linear_relu(self.w_1, frames))
        return projected


class EncoderLayer(nn.Module):
    """One encoder block; there is no residual where the width changes."""

    def __init__(self, input_size: int, shape: SanmShape) -> None:
        super().__init__()
        self.residual = input_size == shape.size
        self.self_attn = SanmSelfAttention(input_size, shape)
        self.feed_forward = FeedForward(shape.size, shape.feed_forward_size)
        self.norm1 = nn.LayerNorm(input_size, eps=_NORM_EPS)
        self.norm2 = nn.LayerNorm(shape.size, eps=_NORM_EPS)

    def forward(
        self, frames: torch.Tensor, layout: PackedSequences, conv_buffer: ConvBuffer
    ) -> torch.Tensor:
        attended: torch.Tensor = self.self_attn(self.norm1(frames), layout, conv_buffer)
        if self.residual:
            attended += frames
        projected: torch.Tensor = self.feed_forward(self.norm2(attended))
        return projected.add_(attended)


class SanmEncoder(nn.Module):
    """FunASR's `SANMEncoder` with sinusoidal positions (`input_layer: pe`)."""

    def __init__(self, input_size: int, shape: SanmShape) -> None:
        super().__init__()
        self.shape = shape
        self.input_size = input_size
        self.encoders0 = nn.ModuleList([EncoderLayer(input_size, shape)])
        self.encoders = nn.ModuleList(
            EncoderLayer(shape.size, shape) for _ in range(shape.num_blocks - 1)
        )
        self.after_norm = nn.LayerNorm(shape.size, eps=_NORM_EPS)
        self._positions = torch.empty(0, input_size)

    def forward(self, frames: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        """Encodes packed frames.

        Args:
            frames: [layout.total, input_size].
            layout: of the utterances.

        Returns:
            [layout.total, shape.size].
        """
        hidden = torch.add(
            self._position_rows(frames, layout), frames, alpha=math.sqrt(self.shape.size)
        )
        hidden = layout.fill(hidden)
        conv_buffer = self.shape.conv_buffer(layout)
        for layer in (*self.encoders0, *self.encoders):
            yield_point()
            hidden = layer(hidden, layout, conv_buffer)
        normed: torch.Tensor = self.after_norm(hidden[: layout.total])
        return normed

    def _position_rows(self, frames: torch.Tensor, layout: PackedSequences) -> torch.Tensor:
        """Returns the positions, which start at 1 in each utterance."""
        longest = max(layout.lengths)
        positions = self._positions  # another thread may replace it meanwhile
        if len(positions) < longest or positions.device != frames.device:
            positions = sinusoids(2 * longest, self.input_size).to(frames.device)
            self._positions = positions
        table = positions.to(frames.dtype)
        return torch.cat([table[:length] for length in layout.lengths])


def sinusoids(count: int, size: int) -> torch.Tensor:
    """Returns encodings of positions 1 to count, float32 [count, size]: sines, then cosines."""
    angles = torch.arange(1, count + 1, dtype=torch.float32)[:, None] * position_rates(size)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def position_rates(size: int) -> torch.Tensor:
    """Returns the angle per position of each frequency, float32 [size / 2]."""
    log_step = torch.log(torch.tensor([10_000.0])) / (size / 2 - 1)
    return torch.exp(torch.arange(size / 2) * -log_step)


class NormedFeedForward(nn.Module):
    """The decoder's feed-forward layer: an inner norm, no output bias."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(size, inner_size)
        self.w_2 = nn.Linear(inner_size, size, bias=False)
        self.norm = nn.LayerNorm(inner_size, eps=_NORM_EPS)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.w_2(self.norm(linear_relu(self.w_1, rows)))
        return projected


class DecoderMemory(nn.Module):
    """The decoder's FSMN memory, nested as in the checkpoint."""

    def __init__(self, shape: SanmShape) -> None:
        super().__init__()
        self.fsmn_block = FsmnMemory(shape.size, shape.kernel_size)

    def forward(
        self, onto: torch.Tensor, rows: torch.Tensor, conv_buffer: ConvBuffer
    ) -> torch.Tensor:
        """Adds the memory of `rows` to `onto`, in place."""
        remembered: torch.Tensor = self.fsmn_block(onto, rows, conv_buffer)
        return remembered


class CrossAttention(nn.Module):
    """Attention of the tokens over the encoder's frames."""

    def __init__(self, shape: SanmShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.linear_q = nn.Linear(shape.size, shape.size)
        self.linear_k_v = nn.Linear(shape.size, 2 * shape.size)
        self.linear_out = nn.Linear(shape.size, shape.size)

    def forward(
        self,
        rows: torch.Tensor,
        frames: torch.Tensor,
        tokens: PackedSequences,
        layout: PackedSequences,
    ) -> torch.Tensor:
        key, value = self.linear_k_v(frames).chunk(2, dim=1)
        attended = attend(self.linear_q(rows), key, value, self.num_heads, tokens, layout)
        projected: torch.Tensor = self.linear_out(attended)
        return projected


class DecoderLayer(nn.Module):
    """Feed-forward, memory, cross-attention, in this order.

    Args:
        shape: sizes.
        memory: False in the last layer, which has no residual either. With memory, `rows` is
            modified in place.
        attention: False in layers beyond FunASR's `att_layer_num`.
    """

    def __init__(self, shape: SanmShape, memory: bool, attention: bool) -> None:
        super().__init__()
        self.feed_forward = NormedFeedForward(shape.size, shape.feed_forward_size)
        self.norm1 = nn.LayerNorm(shape.size, eps=_NORM_EPS)
        self.self_attn = DecoderMemory(shape) if memory else None
        self.norm2 = nn.LayerNorm(shape.size, eps=_NORM_EPS) if memory else None
        self.src_attn = CrossAttention(shape) if attention else None
        self.norm3 = nn.LayerNorm(shape.size, eps=_NORM_EPS) if attention else None

    def forward(
        self,
        rows: torch.Tensor,
        frames: torch.Tensor,
        tokens: PackedSequences,
        layout: PackedSequences,
        conv_buffer: ConvBuffer,
    ) -> torch.Tensor:
        hidden: torch.Tensor = self.feed_forward(self.norm1(rows))
        if self.self_attn is not None and self.norm2 is not None:
            hidden = self.self_attn(rows, self.norm2(hidden), conv_buffer)
        if self.src_attn is not None and self.norm3 is not None:
            hidden += self.src_attn(self.norm3(hidden), frames, tokens, layout)
        return hidden


class SanmDecoder(nn.Module):
    """FunASR's `ParaformerSANMDecoder`: all tokens of an utterance at once."""

    def __init__(self, shape: SanmShape, num_attention_blocks: int, vocabulary_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.decoders = nn.ModuleList(
            DecoderLayer(shape, memory=True, attention=True) for _ in range(num_attention_blocks)
        )
        num_rest = max(shape.num_blocks - num_attention_blocks, 0)
        self.decoders2 = nn.ModuleList(
            DecoderLayer(shape, memory=True, attention=False) for _ in range(num_rest)
        )
        self.decoders3 = nn.ModuleList([DecoderLayer(shape, memory=False, attention=False)])
        self.after_norm = nn.LayerNorm(shape.size, eps=_NORM_EPS)
        self.output_layer = nn.Linear(shape.size, vocabulary_size)

    def forward(
        self,
        embeddings: torch.Tensor,
        frames: torch.Tensor,
        tokens: PackedSequences,
        layout: PackedSequences,
    ) -> torch.Tensor:
        """Scores the vocabulary for each token.

        Args:
            embeddings: one acoustic embedding per token, [tokens.total, size].
            frames: the encoder's output, [layout.total, size].
            tokens: tokens of each utterance.
            layout: frames of each utterance.

        Returns:
            logits, [tokens.total, vocabulary_size].
        """
        logits: torch.Tensor = self.output_layer(self.represent(embeddings, frames, tokens, layout))
        return logits

    def represent(
        self,
        embeddings: torch.Tensor,
        frames: torch.Tensor,
        tokens: PackedSequences,
        layout: PackedSequences,
    ) -> torch.Tensor:
        """Returns the states before the output layer, [tokens.total, size]."""
        conv_buffer = self.shape.conv_buffer(tokens)
        # FunASR applies the shift only to the layers that have cross-attention.
        centered = replace(self.shape, kernel_shift=0).conv_buffer(tokens)
        # The layers modify their input in place.
        hidden = embeddings.clone()
        for layer in self.decoders:
            yield_point()
            hidden = layer(hidden, frames, tokens, layout, conv_buffer)
        for layer in (*self.decoders2, *self.decoders3):
            yield_point()
            hidden = layer(hidden, frames, tokens, layout, centered)
        states: torch.Tensor = self.after_norm(hidden)
        return states
