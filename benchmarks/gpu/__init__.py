"""The steps of `python -m universeg_rt.benchmarks.gpu.main`, one concern a file."""
