"""The folded network on the CPU in C++, inference and training, compiled once for each instruction set."""
