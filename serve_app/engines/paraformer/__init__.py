"""Paraformer on CPUs: PyTorch (`cpu`) and onnxruntime (`onnx`)."""
