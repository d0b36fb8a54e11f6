"""Checks and times the support-mean kernels on a GPU, one concern a file; `main` runs all of it."""
