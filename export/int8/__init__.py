"""Quantises to int8: calibrates, places the roundings, and finds the blocks that must stay in float."""
