"""The steps of `python -m universeg_rt.kernels.check`, one concern a file."""
