"""Tools above the engines: packs with random weights, ONNX export, memory measurements."""
