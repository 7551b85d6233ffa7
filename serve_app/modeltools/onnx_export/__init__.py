"""From a pack for PyTorch to one that onnxruntime runs."""

from serve_app.modeltools.onnx_export.export import DTYPES, export

__all__ = ["DTYPES", "export"]
