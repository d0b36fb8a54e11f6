"""Device memory, copies and CUDA graphs, through a library that is imported when a runner starts."""
