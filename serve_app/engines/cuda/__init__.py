"""Paraformer and CT-Transformer for CUDA devices.

The network is a function of static sizes (a `Bucket`), so that each bucket can be captured as one
CUDA graph. A batch takes one copy to the device and one back. The same functions run on CPU
tensors, so that tests need no device.
"""
