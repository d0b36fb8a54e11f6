"""Runs the CUDA kernels' own code on the CPU, so that tests need no GPU."""
