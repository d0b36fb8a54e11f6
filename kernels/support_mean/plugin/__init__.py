"""The TensorRT plugin: sources, and `loading`, which opens a built library under the TensorRT that runs."""
