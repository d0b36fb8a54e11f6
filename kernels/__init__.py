"""Native code: the network on the CPU in C++, the support-mean operation in CUDA with its TensorRT plugin."""
