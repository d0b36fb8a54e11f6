"""The network in PyTorch: the reference, the folded forward pass that training uses, and checkpoints."""
