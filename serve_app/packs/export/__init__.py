"""From a pack for PyTorch to one that onnxruntime runs."""

from serve_app.packs.export.writing import DTYPES, export

__all__ = ["DTYPES", "export"]
