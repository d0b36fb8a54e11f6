"""Builds engines for GPUs from a bundle's ONNX models, by TensorRT or TensorRT-RTX in a process of its own."""
