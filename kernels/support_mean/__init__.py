"""The support-mean operation: its definition in NumPy, its CUDA kernels, and the kernels' code run on the CPU."""
