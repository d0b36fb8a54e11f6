"""Reads real data sets and splits them into tasks and subjects."""
