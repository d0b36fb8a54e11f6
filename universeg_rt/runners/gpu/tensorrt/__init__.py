"""The runner of TensorRT and TensorRT-RTX engines, which chooses the engine that fits the machine."""
