"""The ONNX graph of the decoder, for one utterance."""

from __future__ import annotations

from dataclasses import replace

import onnx

from serve_app.engines.paraformer.network import ParaformerNet
from serve_app.engines.paraformer.sanm import CrossAttention, DecoderLayer, SanmShape
from serve_app.modeltools.onnx_export.nodes import GraphWriter, Port


def decoder_graph(writer: GraphWriter, net: ParaformerNet) -> onnx.ModelProto:
    """Writes the graph with an empty writer.

    Inputs: `shares` [tokens, frames], the share of each frame in each token, and
    `frames` [frames, size]. Outputs: `ids` int64 [tokens], the best entry of
    each token, and `confidences` [tokens], its probability.
    """
    decoder = net.decoder
    centered = replace(decoder.shape, kernel_shift=0)
    hidden = writer.add("MatMul", "shares", "frames")
    for layers, shape in (
        (decoder.decoders, decoder.shape),
        (decoder.decoders2, centered),
        (decoder.decoders3, centered),
    ):
        for layer in layers:
            if not isinstance(layer, DecoderLayer):
                raise TypeError(f"{type(layer).__name__} is not a decoder layer")
            hidden = _layer(writer, hidden, layer, shape)
    logits = writer.linear(writer.norm(hidden, decoder.after_norm), decoder.output_layer)
    writer.add("ArgMax", logits, name="ids", axis=1, keepdims=0)
    best = writer.add("ReduceMax", writer.add("LogSoftmax", logits, axis=1), axes=(1,), keepdims=0)
    writer.add("Exp", best, name="confidences")
    return writer.model(
        "paraformer_decoder",
        (Port("shares", ("tokens", "frames")), Port("frames", ("frames", decoder.shape.size))),
        (Port("ids", ("tokens",), integers=True), Port("confidences", ("tokens",))),
    )


def _layer(writer: GraphWriter, rows: str, layer: DecoderLayer, shape: SanmShape) -> str:
    forward = layer.feed_forward
    inner = writer.add("Relu", writer.linear(writer.norm(rows, layer.norm1), forward.w_1))
    hidden = writer.linear(writer.norm(inner, forward.norm), forward.w_2)
    if layer.self_attn is not None and layer.norm2 is not None:
        normed = writer.norm(hidden, layer.norm2)
        weight = layer.self_attn.fsmn_block.weight
        memory = writer.depthwise(normed, weight, shape.left, shape.right)
        hidden = writer.add("Add", writer.add("Add", rows, normed), memory)
    if layer.src_attn is not None and layer.norm3 is not None:
        asked = writer.norm(hidden, layer.norm3)
        hidden = writer.add("Add", hidden, _attend(writer, asked, layer.src_attn, shape))
    return hidden


def _attend(writer: GraphWriter, rows: str, attention: CrossAttention, shape: SanmShape) -> str:
    joined = writer.linear("frames", attention.linear_k_v)
    key, value = writer.add_many("Split", [joined], 2, attributes={"axis": 1})
    query = writer.linear(rows, attention.linear_q)
    heads = writer.attention(query, key, value, attention.num_heads, shape.size)
    return writer.linear(heads, attention.linear_out)
