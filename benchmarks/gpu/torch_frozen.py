"""Static frozen files by PyTorch, node by node: on a GPU as one CUDA graph, where no runtime of ONNX has a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from universeg_rt.errors import RunnerError

from . import machine
from .captured import Captured

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
TYPES = {1: torch.float32, 10: torch.float16}  # by the number of ONNX


class TorchFrozen:
    """layout: of FORMATS, in which maps and weights lie. RunnerError for a file with other operators than a static
    network in floating point has."""

    def __init__(self, model: bytes, device: str, layout: str) -> None:
        import onnx

        from universeg_rt.export.emit.static import LOGITS

        self._device, self._format, self._wanted = device, FORMATS[layout], LOGITS
        self._graphs: dict[tuple[int, ...], Captured] = {}
        torch.backends.cudnn.benchmark = True
        graph = onnx.load_from_string(model).graph
        self._arrays = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        self._values = {name: self._laid(torch.from_numpy(array.copy()).to(device))
                        for name, array in self._arrays.items() if array.dtype.kind == "f"}
        self._nodes = []
        for node in graph.node:
            said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if all(name in self._values for name in node.input):  # weights in another type
                self._values[node.output[0]] = self._laid(self._apply(node, said, self._values))
            else:
                self._nodes.append((node, said))

    def run(self, queries: np.ndarray) -> np.ndarray:
        """Logits (B,1,H,W) float32 of queries (B,1,H,W) float32."""
        machine.set_tf32(torch, False)
        with torch.inference_mode():
            if self._device != "cuda":
                return self._forward(torch.from_numpy(queries)).float().numpy()
            if queries.shape not in self._graphs:
                self._graphs[queries.shape] = Captured(self._forward, queries.shape, self._device)
            return self._graphs[queries.shape](queries)

    def _forward(self, query: Tensor) -> Tensor:
        values = {**self._values, "query": query}
        for node, said in self._nodes:
            values[node.output[0]] = self._apply(node, said, values)
        return values[self._wanted]

    def _apply(self, node, said: dict, values: dict[str, Tensor]) -> Tensor:
        x, rest = values[node.input[0]], node.input[1:]
        match node.op_type:
            case "Cast":
                return x.to(TYPES[said["to"]])
            case "Identity":
                return x
            case "Conv":
                return F.conv2d(x, *(values[name] for name in rest), padding=said.get("pads", [0, 0])[:2])
            case "Add":
                return x + values[rest[0]]
            case "LeakyRelu":
                return F.leaky_relu(x, said["alpha"])
            case "Sigmoid":
                return torch.sigmoid(x)
            case "MaxPool":
                return F.max_pool2d(x, said["kernel_shape"], said["strides"])
            case "Concat":
                return torch.cat([values[name] for name in node.input], said["axis"])
            case "Slice":
                start, end, axis = (int(self._arrays[name][0]) for name in rest)
                return x[(*[slice(None)] * axis, slice(start, end))]
            case "Resize":
                return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        raise RunnerError(f"PyTorch does not run the operator {node.op_type} of this file here")

    def _laid(self, value: Tensor) -> Tensor:
        return value.contiguous(memory_format=self._format) if value.ndim == 4 else value
