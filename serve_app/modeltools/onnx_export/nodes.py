"""Writes ONNX graphs node by node.

The network is written node by node instead of traced: tracing would fix the boundaries of a batch,
take minutes for the large model, and depend on the version of PyTorch's exporter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 17
_IR_VERSION = 8
_NORM_EPS = 1e-12

Attribute = int | float | str | Sequence[int] | onnx.TensorProto
Array = (
    npt.NDArray[np.float32] | npt.NDArray[np.int64] | npt.NDArray[np.int8] | npt.NDArray[np.uint8]
)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph; strings in `shape` name dynamic sizes."""

    name: str
    shape: tuple[int | str, ...]
    integers: bool = False

    def info(self) -> onnx.ValueInfoProto:
        kind = TensorProto.INT64 if self.integers else TensorProto.FLOAT
        return helper.make_tensor_value_info(self.name, kind, list(self.shape))


class GraphWriter:
    """Collects the nodes and weights of one graph."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def add(
        self,
        op: str,
        *inputs: str,
        name: str | None = None,
        domain: str | None = None,
        **attributes: Attribute,
    ) -> str:
        """Adds a node with one output, whose name it returns."""
        return self.add_many(op, inputs, 1, name, attributes, domain)[0]

    def add_many(
        self,
        op: str,
        inputs: Iterable[str],
        num_outputs: int,
        name: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        domain: str | None = None,
    ) -> list[str]:
        """Adds a node with several outputs, whose names it returns."""
        stem = f"{op}_{len(self._nodes)}" if name is None else name
        outputs = [stem] if num_outputs == 1 else [f"{stem}_{at}" for at in range(num_outputs)]
        node = helper.make_node(op, list(inputs), outputs, name=stem, domain=domain)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in (attributes or {}).items()
        )
        self._nodes.append(node)
        return outputs

    def constant(self, values: Array) -> str:
        """Adds a weight; returns its name."""
        name = f"weight_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        """Adds an int64 vector, for shapes and axes."""
        return self.constant(np.array(values, dtype=np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, dtype=np.float32))

    def tensor(self, values: torch.Tensor) -> str:
        return self.constant(as_array(values))

    def linear(self, rows: str, layer: nn.Linear) -> str:
        """A linear layer, [n, in] -> [n, out], which a subclass may quantize."""
        product = self.add("MatMul", rows, self.tensor(layer.weight.T))
        if layer.bias is None:
            return product
        return self.add("Add", product, self.tensor(layer.bias))

    def exact_linear(self, rows: str, layer: nn.Linear) -> str:
        """As `linear`, but never quantized."""
        weights = (self.tensor(layer.weight), self.tensor(layer.bias))
        return self.add("Gemm", rows, *weights, transB=1)

    def norm(self, rows: str, layer: nn.LayerNorm) -> str:
        weights = (self.tensor(layer.weight), self.tensor(layer.bias))
        return self.add("LayerNormalization", rows, *weights, axis=-1, epsilon=_NORM_EPS)

    def depthwise(self, rows: str, weight: torch.Tensor, left: int, right: int) -> str:
        """A depthwise convolution along [n, dim] with weight [dim, 1, taps].

        It is written as an image of height 1 in channels-last order, for which onnxruntime has
        a fast kernel that includes the transpositions.
        """
        image = self.add("Unsqueeze", rows, self.integers(0, 1))
        image = self.add("Transpose", image, perm=(0, 3, 1, 2))
        image = self.add(
            "Conv",
            image,
            self.tensor(weight[:, :, None, :]),
            group=weight.shape[0],
            pads=(0, left, 0, right),
            kernel_shape=(1, weight.shape[2]),
        )
        image = self.add("Transpose", image, perm=(0, 2, 3, 1))
        return self.add("Squeeze", image, self.integers(0, 1))

    def attention(self, query: str, key: str, value: str, num_heads: int, size: int) -> str:
        """Multi-head attention of [n, size] over [m, size]."""
        split = self.integers(0, num_heads, size // num_heads)
        heads = {
            what: self.add("Reshape", rows, split)
            for what, rows in (("query", query), ("key", key), ("value", value))
        }
        asked = self.add("Transpose", heads["query"], perm=(1, 0, 2))
        turned = self.add("Transpose", heads["key"], perm=(1, 2, 0))
        content = self.add("Transpose", heads["value"], perm=(1, 0, 2))
        scale = self.scalar((size // num_heads) ** -0.5)
        scores = self.add("MatMul", self.add("Mul", asked, scale), turned)
        mixed = self.add("MatMul", self.add("Softmax", scores, axis=-1), content)
        joined = self.add("Transpose", mixed, perm=(1, 0, 2))
        return self.add("Reshape", joined, self.integers(0, size))

    def model(self, name: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> onnx.ModelProto:
        """Returns the complete model."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [port.info() for port in inputs],
            [port.info() for port in outputs],
            self._weights,
        )
        return helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", OPSET),
                # onnxruntime's own operators.
                helper.make_opsetid("com.microsoft", 1),
            ],
            ir_version=_IR_VERSION,
            producer_name="paraserve",
        )


def as_array(values: torch.Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = values.detach().float().numpy()
    return found
