"""Supports made, looked at and mended: slices of labelled volumes, what is suspicious, what hurts, what is alike."""
