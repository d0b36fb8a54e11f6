"""The support-mean operation: its definition, CUDA kernels and TensorRT plugin."""
