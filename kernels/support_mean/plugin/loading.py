"""Opens a built plugin library under the running TensorRT; the runner that needs it at run time holds the code."""

from universeg_rt.runners.gpu.tensorrt.plugin import (
    NAMESPACE, OPERATIONS, PluginInfo, inspect, load, required_generation)

__all__ = ["NAMESPACE", "OPERATIONS", "PluginInfo", "inspect", "load", "required_generation"]
