"""Runners on the CPU: our native kernels, ONNX Runtime and OpenVINO."""
