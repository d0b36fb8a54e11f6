"""Frozen tasks: a support turned into constants, so that a query runs through a plain network or file."""
