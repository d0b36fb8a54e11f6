"""A frozen model that takes an image as it is: pre-processing and the way back as standard operators around it.

Input
    image               (H,W)    float32 or uint8, of any size
Outputs
    mask                (H,W)    uint8, 1 where the probability is 0.5 or more
    probability         (H,W)    float32

Resizing is two matrix products, M_h · x · M_wᵀ. Row o of M, for n pixels made of m, is the triangle around the centre
of pixel o, scaled to a sum of 1: max(0, 1 - |i + ½ - (o + ½) s| / max(s, 1)) with s = m / n. This is bilinear where it
enlarges and antialiased where it shrinks, as `universeg_rt/imaging/preprocess.py` has it; Resize antialiases from
operator set 18 on only. An image without contrast becomes zeros, where the SDK refuses it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from universeg_rt.errors import InputError
from universeg_rt.frozen import seal
from universeg_rt.frozen.record import IMAGE, IMAGE_TYPES
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.normalisation import Percentiles, Window

PREFIX = "image/"  # of the names of all that is added
INNER = PREFIX + "network_probability"


def with_preprocessing(frozen: FrozenTask, image_type: str = "float32") -> bytes:
    """The file of a frozen task, of any kind and precision, with its pre-processing inside.

    image_type: `float32` or `uint8`, of the image that the file then takes. Raises InputError for another one, for a
    task that normalises by percentiles, and for one that keeps the aspect ratio.
    """
    if image_type not in IMAGE_TYPES:
        raise InputError(f"the image's type is {image_type!r}; accepted: {', '.join(IMAGE_TYPES)}")
    how = frozen.record.normalise
    if isinstance(how, Percentiles):
        raise InputError(f"this task normalises by {how}, which a file cannot do by standard operators; prepare the "
                         "task with a window or 'minmax', or freeze it without pre-processing")
    if frozen.record.aspect != "stretch":
        raise InputError(f"this task has the aspect {frozen.record.aspect!r}, and a file prepares images by 'stretch' "
                         "only; prepare the task so, or freeze it without pre-processing")
    model = onnx.load_model_from_string(frozen.model)
    graph, added = model.graph, _Nodes()
    for node in graph.node:
        node.name = _renamed(node.name)
        node.input[:] = map(_renamed, node.input)
        node.output[:] = map(_renamed, node.output)
    before = _before(added, frozen.grid, how if isinstance(how, Window) else None)
    split = len(added.nodes)
    _after(added, frozen.grid, before, frozen.threshold)
    inner = list(graph.node)
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend([*added.nodes[:split], *inner, *added.nodes[split:]])
    graph.initializer.extend(added.constants.values())
    element = helper.np_dtype_to_tensor_dtype(np.dtype(image_type))
    graph.input.append(helper.make_tensor_value_info("image", element, ["H", "W"]))
    for name, kind in (("mask", TensorProto.UINT8), ("probability", TensorProto.FLOAT)):
        graph.output.append(helper.make_tensor_value_info(name, kind, ["H", "W"]))
    said = {entry.key: entry.value for entry in model.metadata_props if entry.key != seal.KEY}
    helper.set_model_props(model, {**said, IMAGE: image_type})
    onnx.checker.check_model(model, full_check=True)
    return seal.sealed(model.SerializeToString(deterministic=True))


def _renamed(name: str) -> str:
    return INNER if name == "probability" else name


class _Nodes:
    """Collects nodes and constants; every method that adds one returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def __call__(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self._constant(f"{PREFIX}number/{value:.9g}", np.array(value, np.float32))

    def axis(self, value: int) -> str:
        return self._constant(f"{PREFIX}axis/{value}", np.array([value], np.int64))

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name


def _before(g: _Nodes, grid: tuple[int, int], window: Window | None) -> tuple[str, str]:
    """From the image to the query; gives its sides as scalars."""
    x = g("Cast", ["image"], f"{PREFIX}float", to=TensorProto.FLOAT)
    height, width = (g("Squeeze", [g("Cast", [g("Shape", ["image"], f"{PREFIX}{side}/shape", start=i, end=i + 1)],
                                     f"{PREFIX}{side}/float", to=TensorProto.FLOAT)], f"{PREFIX}{side}")
                     for i, side in enumerate(("height", "width")))
    if window is None:
        x = _normalised(g, x, f"{PREFIX}normalised")
    else:
        x = g("Clip", [x, g.number(window.low), g.number(window.high)], f"{PREFIX}window")
        x = g("Sub", [x, g.number(window.low)], f"{PREFIX}window/above")
        x = g("Div", [x, g.number(window.high - window.low)], f"{PREFIX}window/share")
    x = _resized(g, x, (height, width), (g.number(grid[0]), g.number(grid[1])), f"{PREFIX}to_grid")
    if window is None:
        x = _normalised(g, x, f"{PREFIX}normalised_on_grid")
    x = g("Unsqueeze", [x, g.axis(0)], f"{PREFIX}channel")
    g("Unsqueeze", [x, g.axis(0)], "query")
    return height, width


def _after(g: _Nodes, grid: tuple[int, int], sides: tuple[str, str], threshold: float) -> None:
    """From the network's probability to both outputs; zeros for an image of one value, in which there is nothing."""
    x = g("Squeeze", [g("Squeeze", [INNER, g.axis(0)], f"{PREFIX}first"), g.axis(0)], f"{PREFIX}map")
    x = _resized(g, x, (g.number(grid[0]), g.number(grid[1])), sides, f"{PREFIX}back")
    highest, lowest = (g(op, [f"{PREFIX}float"], f"{PREFIX}{op}", keepdims=0) for op in ("ReduceMax", "ReduceMin"))
    differs = g("Cast", [g("Greater", [highest, lowest], f"{PREFIX}differs")], f"{PREFIX}seen", to=TensorProto.FLOAT)
    g("Mul", [x, differs], "probability")
    marked = g("GreaterOrEqual", ["probability", g.number(threshold)], f"{PREFIX}marked")
    g("Cast", [marked], "mask", to=TensorProto.UINT8)


def _normalised(g: _Nodes, x: str, name: str) -> str:
    """Minimum to 0, maximum to 1; zeros where these are one."""
    low = g("ReduceMin", [x], f"{name}/low", keepdims=0)
    above = g("Sub", [x, low], f"{name}/above")
    span = g("ReduceMax", [above], f"{name}/span", keepdims=0)
    return g("Div", [above, g("Max", [span, g.number(float(np.finfo(np.float32).tiny))], f"{name}/divisor")], name)


def _resized(g: _Nodes, x: str, sides: tuple[str, str], new: tuple[str, str], name: str) -> str:
    rows = _matrix(g, sides[0], new[0], f"{name}/rows")
    columns = g("Transpose", [_matrix(g, sides[1], new[1], f"{name}/columns")], f"{name}/columns/transposed")
    return g("MatMul", [rows, g("MatMul", [x, columns], f"{name}/wide")], name)


def _matrix(g: _Nodes, side: str, new: str, name: str) -> str:
    """(new, side) float32, as the module's docstring has it, of two scalars."""
    step = g("Div", [side, new], f"{name}/step")
    centres = g("Mul", [_middles(g, new, f"{name}/new"), step], f"{name}/centres")
    distance = g("Sub", [_middles(g, side, f"{name}/old"), g("Unsqueeze", [centres, g.axis(1)], f"{name}/column")],
                 f"{name}/distance")
    reach = g("Max", [step, g.number(1)], f"{name}/reach")
    share = g("Div", [g("Abs", [distance], f"{name}/absolute"), reach], f"{name}/share")
    triangle = g("Relu", [g("Sub", [g.number(1), share], f"{name}/slope")], f"{name}/triangle")
    return g("Div", [triangle, g("ReduceSum", [triangle, g.axis(1)], f"{name}/sum", keepdims=1)], name)


def _middles(g: _Nodes, count: str, name: str) -> str:
    """(count,) ½, 1½, 2½ .."""
    steps = g("Range", [g.number(0), count, g.number(1)], f"{name}/steps")
    return g("Add", [steps, g.number(0.5)], f"{name}/middles")
