"""Frozen tasks as files: what stands in one, and the runtimes that run it."""
