"""ONNX graphs with int8 matrix products.

Activations have one scale per row and weights one per output channel, as in
`serve_app.engines.paraformer.int8`. `onnxruntime.quantization.quantize_dynamic` uses one scale per
call instead, which changes 3 % of the characters of the demo recording; this changes none.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from torch import nn

from serve_app.modeltools.onnx_export.nodes import GraphWriter, as_array

# CPUs without VNNI add pairs of u8 * s8 products in 16 bits, which saturate at
# 32767: 2 * 255 * 64 stays below. With 127, such CPUs would give other results.
_WEIGHT_LIMIT = 64
_ACTIVATION_LIMIT = 127.0
# Activations are unsigned: 128 stands for 0.
_ZERO_POINT = 128
_SMALLEST = 1e-30
_CUSTOM = "com.microsoft"


class Int8Writer(GraphWriter):
    """Writes `linear` in integers and everything else in float32."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: dict[str, tuple[str, str]] = {}

    def linear(self, rows: str, layer: nn.Linear) -> str:
        codes, steps = self._quantized(rows)
        weight = as_array(layer.weight)
        weight_steps = np.maximum(np.abs(weight).max(axis=1), _SMALLEST) / _WEIGHT_LIMIT
        weight_codes = np.clip(
            np.round(weight / weight_steps[:, None]), -_WEIGHT_LIMIT, _WEIGHT_LIMIT
        ).astype(np.int8)
        # The scales of the rows are applied below: the operator takes only one for all.
        product = self.add(
            "MatMulIntegerToFloat",
            codes,
            self.constant(weight_codes.T),
            self.scalar(1.0),
            self.constant(weight_steps.astype(np.float32)),
            self.constant(np.array(_ZERO_POINT, dtype=np.uint8)),
            domain=_CUSTOM,
        )
        product = self.add("Mul", product, steps)
        if layer.bias is None:
            return product
        return self.add("Add", product, self.tensor(layer.bias))

    def _quantized(self, rows: str) -> tuple[str, str]:
        """Returns uint8 codes and the scale of each row, [n, 1]; cached by rows."""
        if rows not in self._codes:
            largest = self.add("ReduceMax", self.add("Abs", rows), axes=(1,), keepdims=0)
            kept = self.add("Max", largest, self.scalar(_SMALLEST))
            steps = self.add("Div", kept, self.scalar(_ACTIVATION_LIMIT))
            zero = helper.make_tensor("zero", onnx.TensorProto.UINT8, [1], [_ZERO_POINT])
            zeros = self.add("ConstantOfShape", self.add("Shape", steps), value=zero)
            codes = self.add("QuantizeLinear", rows, steps, zeros, axis=0)
            self._codes[rows] = (codes, self.add("Unsqueeze", steps, self.integers(1)))
        return self._codes[rows]
