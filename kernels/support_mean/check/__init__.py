"""The steps of `python -m universeg_rt.kernels.support_mean.check.main`, one concern a file."""
