"""Where kernels run during a check: the GPU through the CUDA library, or the CPU build in its place (--dry-run).

Both run a problem on torch tensors, so that inputs, comparisons and the PyTorch operators are the same code.
"""

from __future__ import annotations

import importlib.util
import time

import numpy as np

from universeg_rt.errors import RunnerError
from universeg_rt.kernels.support_mean.check import cases
from universeg_rt.kernels.support_mean.host import module as host

from ..library import Library


def torch_module():
    try:
        import torch
    except ImportError:
        raise RunnerError("PyTorch is missing; the check compares with its operators (pip install torch)") from None
    return torch


class Device:
    """Common part: tensors by buffer name, and the pointers that a kernel gets."""

    def __init__(self, name: str):
        self.torch, self.name = torch_module(), name

    def torch_dtype(self, dtype: str):
        return getattr(self.torch, dtype)

    def tensor(self, array: np.ndarray):
        """The array's copy on this device, in its storage type."""
        torch = self.torch
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).to(self.name)
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.name)

    def array(self, tensor) -> np.ndarray:
        """The tensor's copy in host memory, in its storage type."""
        if tensor.dtype == self.torch.bfloat16:
            return tensor.view(self.torch.int16).cpu().numpy().view(cases.numpy_dtype("bfloat16"))
        return tensor.cpu().numpy()

    def outputs(self, problem: dict) -> dict:
        """Output tensors of a problem, poisoned with NaN so that an unwritten element shows."""
        kind = self.torch_dtype(("float32", "float16", "bfloat16")[problem["dtype"]])
        return {name: self.torch.full(shape, float("nan"), dtype=kind, device=self.name)
                for name, shape in host.output_shapes(problem).items()}

    @staticmethod
    def pointers(tensors: dict) -> dict:
        return {name: (t.data_ptr(), t.numel() * t.element_size()) for name, t in tensors.items()}


class Gpu(Device):
    """The CUDA library on the current device and PyTorch's current stream."""

    def __init__(self, library: Library):
        super().__init__("cuda")
        if not self.torch.cuda.is_available():
            raise RunnerError("PyTorch sees no GPU; run this on a GPU machine, or with --dry-run")
        self.library = library
        self.properties = self.torch.cuda.get_device_properties(0)
        self.multiprocessors = self.properties.multi_processor_count
        self.cache_bytes = getattr(self.properties, "L2_cache_size", 50 << 20)

    def launcher(self, problem: dict, tensors: dict):
        """A function that enqueues the kernel on PyTorch's current stream (the capturing one inside a graph)."""
        enqueue, current = self.library.prepared(problem, self.pointers(tensors)), self.torch.cuda.current_stream
        return lambda: enqueue(current().cuda_stream)

    def synchronize(self) -> None:
        self.torch.cuda.synchronize()

    def timer(self, function, repeats: int, capture: bool = True):
        """A function that gives the mean seconds of one call, by events around `repeats` calls.

        The calls are replayed from a CUDA graph, so that the time between launches is the GPU's and not Python's; where
        a call cannot be captured they are made one by one. The second value says which.
        """
        torch = self.torch
        function()
        torch.cuda.synchronize()
        body, captured = (lambda: [function() for _ in range(repeats)]), False
        try:
            if capture:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    for _ in range(repeats):
                        function()
                body, captured = graph.replay, True
        except RuntimeError:
            torch.cuda.synchronize()

        def seconds() -> float:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            body()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / repeats

        return seconds, captured

    def free(self) -> None:
        self.torch.cuda.empty_cache()


class Dry(Device):
    """The CPU build in the GPU's place. Its times are those of a checker's loops and mean nothing."""

    multiprocessors, cache_bytes = 132, 1 << 10

    def __init__(self, path):
        super().__init__("cpu")
        self.torch.set_num_threads(1)  # toy sizes: more threads only wait for each other
        spec = importlib.util.spec_from_file_location("universeg_rt.kernels._support_mean_host", path)
        self.native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.native)

    def launcher(self, problem: dict, tensors: dict):
        pointers = self.pointers(tensors)
        return lambda: self.native.run(problem, pointers)

    def synchronize(self) -> None:
        pass

    def timer(self, function, repeats: int, capture: bool = True):
        def seconds() -> float:
            began = time.perf_counter()
            for _ in range(repeats):
                function()
            return (time.perf_counter() - began) / repeats

        return seconds, False

    def free(self) -> None:
        pass


def open_device(state: dict) -> Device:
    """The device of this check, opened once."""
    if "device" not in state:
        built = state["built"]
        if state["dry"]:
            state["device"] = Dry(built.host)
        else:
            state["device"] = Gpu(Library(built.library))
    return state["device"]
