"""Exports a PyTorch pack to an ONNX pack for onnxruntime."""

from serve_app.modeltools.onnx_export.export import DTYPES, export

__all__ = ["DTYPES", "export"]
