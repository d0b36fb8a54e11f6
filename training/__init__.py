"""The reference network in PyTorch, its training and its evaluation."""
