"""The folded network on the CPU in C++: the native runner's kernels, one build for each instruction set, and its order of work."""
