"""The support-mean operation: its definition in NumPy, its CUDA kernels, their check and their TensorRT plugin."""
