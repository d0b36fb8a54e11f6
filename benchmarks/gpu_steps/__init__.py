"""The steps of `python -m universeg_rt.benchmarks.gpu`, one concern a file."""
