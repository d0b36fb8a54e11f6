"""Runners on an NVIDIA GPU: TensorRT, TensorRT-RTX and ONNX Runtime's CUDA provider."""
