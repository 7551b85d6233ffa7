"""Paraformer and CT-Transformer for CUDA devices.

The network is a function of static sizes (a `Bucket`), so that each bucket is one
CUDA graph; a batch costs one copy to the device and one back. The same functions
run on CPU tensors, which is how they are tested without a device.
"""
