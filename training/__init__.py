"""The reference network in PyTorch, its tasks, its training and its evaluation."""
