"""The ONNX graph of encoder and predictor: spectra of one utterance to frames and weights."""

from __future__ import annotations

import math

import numpy as np
import onnx
import torch
from torch import nn

from serve_app.engines.features import mel_filters
from serve_app.engines.paraformer.cif import CifPredictor
from serve_app.engines.paraformer.network import ParaformerNet, TimestampPredictor
from serve_app.engines.paraformer.sanm import EncoderLayer, SanmEncoder, SanmShape, position_rates
from serve_app.modeltools.onnx_export.nodes import GraphWriter, Port, as_array

_SPECTRUM_BINS = 256


def encoder_graph(writer: GraphWriter, net: ParaformerNet) -> onnx.ModelProto:
    """Writes the graph with an empty writer.

    Inputs: `power` [spectra, 256], the power spectrum of each 10 ms; `stacking`
    int64 [frames, lfr_m], the spectra of each frame; `cmvn` [2, dim].
    Outputs: `frames` [frames, size], `alphas` [frames] and, with a timestamp
    head, `fine_alphas` [3 * frames], unscaled.
    """
    size = net.shape.encoder.size
    features = _features(writer, net.shape.input_size)
    _frames(writer, features, net.encoder)
    _alphas(writer, net.predictor)
    outputs = [Port("frames", ("frames", size)), Port("alphas", ("frames",))]
    if isinstance(net.predictor, TimestampPredictor):
        _fine_alphas(writer, net.predictor)
        outputs.append(Port("fine_alphas", ("fine_frames",)))
    inputs = (
        Port("power", ("spectra", _SPECTRUM_BINS)),
        Port("stacking", ("frames", net.shape.lfr_m), integers=True),
        Port("cmvn", (2, net.shape.input_size)),
    )
    return writer.model("paraformer_encoder", inputs, outputs)


def _features(writer: GraphWriter, size: int) -> str:
    filters = writer.tensor(mel_filters(torch.device("cpu")))
    energies = writer.add("Gemm", "power", filters)
    smallest = writer.scalar(float(np.finfo(np.float32).eps))
    log_mel = writer.add("Log", writer.add("Max", energies, smallest))
    stacked = writer.add("Gather", log_mel, "stacking", axis=0)
    stacked = writer.add("Reshape", stacked, writer.integers(-1, size))
    shift, scale = writer.add_many("Split", ["cmvn"], 2, attributes={"axis": 0})
    return writer.add("Mul", writer.add("Add", stacked, shift), scale)


def _frames(writer: GraphWriter, features: str, encoder: SanmEncoder) -> str:
    shape = encoder.shape
    scaled = writer.add("Mul", features, writer.scalar(math.sqrt(shape.size)))
    hidden = writer.add("Add", scaled, _positions(writer, features, encoder.input_size))
    for layer in (*encoder.encoders0, *encoder.encoders):
        if not isinstance(layer, EncoderLayer):
            raise TypeError(f"{type(layer).__name__} is not an encoder layer")
        hidden = _layer(writer, hidden, layer, shape)
    normed = writer.norm(hidden, encoder.after_norm)
    return writer.add("Identity", normed, name="frames")


def _positions(writer: GraphWriter, features: str, size: int) -> str:
    """Sines, then cosines, of positions from 1 on."""
    length = writer.add("Shape", features, start=0, end=1)
    last = writer.add("Add", length, writer.integers(1))
    end = writer.add("Squeeze", last, writer.integers(0))
    first, step = (writer.constant(np.array(1, dtype=np.int64)) for _ in range(2))
    counted = writer.add("Cast", writer.add("Range", first, end, step), to=onnx.TensorProto.FLOAT)
    column = writer.add("Unsqueeze", counted, writer.integers(1))
    angles = writer.add("Mul", column, writer.tensor(position_rates(size)))
    return writer.add("Concat", writer.add("Sin", angles), writer.add("Cos", angles), axis=1)


def _layer(writer: GraphWriter, frames: str, layer: EncoderLayer, shape: SanmShape) -> str:
    attention = layer.self_attn
    joined = writer.linear(writer.norm(frames, layer.norm1), attention.linear_q_k_v)
    query, key, value = writer.add_many("Split", [joined], 3, attributes={"axis": 1})
    heads = writer.attention(query, key, value, shape.num_heads, shape.size)
    attended = writer.linear(heads, attention.linear_out)
    memory = writer.depthwise(value, attention.fsmn_block.weight, shape.left, shape.right)
    hidden = writer.add("Add", writer.add("Add", attended, value), memory)
    if layer.residual:
        hidden = writer.add("Add", hidden, frames)
    inner = writer.add(
        "Relu", writer.linear(writer.norm(hidden, layer.norm2), layer.feed_forward.w_1)
    )
    return writer.add("Add", writer.linear(inner, layer.feed_forward.w_2), hidden)


def _alphas(writer: GraphWriter, predictor: CifPredictor) -> None:
    shape = predictor.shape
    context = _rows_of(writer, _context(writer, predictor))
    scores = writer.exact_linear(context, predictor.cif_output)
    _weigh(writer, scores, shape.smooth_factor, shape.noise_threshold, "alphas")


def _fine_alphas(writer: GraphWriter, predictor: TimestampPredictor) -> None:
    head = predictor.head
    source = _context(writer, predictor) if head.after_context else _columns_of(writer, "frames")
    up = predictor.upsample_cnn
    fine = writer.add(
        "ConvTranspose",
        source,
        writer.tensor(up.weight),
        writer.tensor(_bias_of(up)),
        strides=up.stride,
    )
    rows = _rows_of(writer, fine)
    if predictor.blstm is not None:
        rows = _recurrent(writer, rows, predictor.blstm)
    scores = writer.exact_linear(rows, predictor.cif_output2)
    _weigh(writer, scores, head.smooth_factor, head.noise_threshold, "fine_alphas")


def _context(writer: GraphWriter, predictor: CifPredictor) -> str:
    """Convolves each frame with its neighbors, [1, size, frames]."""
    conv = predictor.cif_conv1d
    convolved = writer.add(
        "Conv",
        _columns_of(writer, "frames"),
        writer.tensor(conv.weight),
        writer.tensor(_bias_of(conv)),
        pads=(predictor.shape.left, predictor.shape.right),
    )
    return writer.add("Relu", convolved)


def _weigh(writer: GraphWriter, scores: str, smooth: float, noise: float, name: str) -> None:
    scaled = writer.add("Mul", writer.add("Sigmoid", scores), writer.scalar(smooth))
    kept = writer.add("Relu", writer.add("Sub", scaled, writer.scalar(noise)))
    writer.add("Squeeze", kept, writer.integers(1), name=name)


def _recurrent(writer: GraphWriter, rows: str, lstm: nn.LSTM) -> str:
    """Bidirectional LSTM, [n, size] -> [n, 2 * size]."""
    states = [dict(lstm.named_parameters())] * 2
    suffixes = ("", "_reverse")

    def stacked(*names: str) -> str:
        parts = [
            np.concatenate([_onnx_gates(state[f"{name}_l0{suffix}"]) for name in names])
            for state, suffix in zip(states, suffixes, strict=True)
        ]
        return writer.constant(np.stack(parts))

    sequence = writer.add("Unsqueeze", rows, writer.integers(1))
    weights = (stacked("weight_ih"), stacked("weight_hh"), stacked("bias_ih", "bias_hh"))
    found = writer.add(
        "LSTM", sequence, *weights, hidden_size=lstm.hidden_size, direction="bidirectional"
    )
    return writer.add("Reshape", found, writer.integers(-1, 2 * lstm.hidden_size))


def _onnx_gates(values: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """PyTorch orders the gates input, forget, cell, output; ONNX input, output, forget, cell."""
    entry, forget, cell, output = as_array(values).reshape(4, -1, *values.shape[1:])
    return np.concatenate([entry, output, forget, cell])


def _columns_of(writer: GraphWriter, rows: str) -> str:
    """[n, size] -> [1, size, n]."""
    return writer.add("Unsqueeze", writer.add("Transpose", rows, perm=(1, 0)), writer.integers(0))


def _rows_of(writer: GraphWriter, columns: str) -> str:
    """[1, size, n] -> [n, size]."""
    return writer.add("Transpose", writer.add("Squeeze", columns, writer.integers(0)), perm=(1, 0))


def _bias_of(conv: nn.Conv1d | nn.ConvTranspose1d) -> torch.Tensor:
    if conv.bias is None:
        raise ValueError("the predictor's convolutions have a bias")
    return conv.bias
