"""Draws what the network trains on: synthetic tasks, augmentation, and the episodes of the paper's Algorithm 1."""
