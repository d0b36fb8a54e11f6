"""From a checkpoint to a checked bundle: folds, ONNX, parity, manifest."""
