"""Measures latency, memory and accuracy, side by side with peers in one run."""
