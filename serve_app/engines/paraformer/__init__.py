"""Paraformer on CPUs, with PyTorch (`cpu`) and onnxruntime (`onnx`)."""
