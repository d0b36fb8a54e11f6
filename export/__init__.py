"""Turns a checkpoint into a checked bundle: folds, ONNX, precisions, parity, engines."""
