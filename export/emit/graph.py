"""GraphBuilder: adds nodes with readable names and shared constants, and closes them into a checked ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .quantise import Quantisation, quantise_weight
from .support_mean import DOMAIN, DOMAIN_VERSION, OUTPUTS, support_mean_functions

# the newest that TensorRT 8.5 reads; has layers as functions, Shape with a start, Resize with aligned corners
OPSET = 17
IR_VERSION = 8  # the first with model-local functions


class GraphBuilder:
    """Collects nodes; every method that adds one returns the name of its output.

    A node is named after its (first) output, `block/what`, so profiles and error messages can be read. `dtype` is the
    type of weights and maps; `wide` that of what is summed up over the support and of what callers give and get:
    float32 where maps are float16, otherwise the same. `wide_means`: the support-mean operations' means have the type
    `wide`, which is for shares of a mean that are added up outside. `quantisation`: names the convolutions that are
    int8.
    """

    def __init__(self, dtype: type = np.float32, wide_means: bool = False,
                 quantisation: Quantisation | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.quantisation = quantisation
        self.wide_means = wide_means
        self.wide = np.dtype(np.float32) if self.dtype == np.float16 else self.dtype
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._rounded: dict[str, np.float32] = {}  # tensors that came from integers, with their scale

    def input(self, name: str, shape: Sequence[int | str], default: np.ndarray | None = None, wide: bool = False,
              integers: bool = False) -> str:
        """Declare a graph input, of type `wide` or `dtype` or of the quantised maps' integers; one with a default value
        may be left out by the caller."""
        dtype = self._integers if integers else self.wide if wide else self.dtype
        self._inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), list(shape)))
        if default is not None:
            self._initializers[name] = numpy_helper.from_array(default.astype(dtype), name)
        return name

    def output(self, tensor: str, name: str, shape: Sequence[int | str], wide: bool = False,
               integers: bool = False) -> None:
        """Declare a graph output called `name` that holds `tensor`, of type `wide` or `dtype` or of integers."""
        self.node("Identity", [tensor], name)
        element = helper.np_dtype_to_tensor_dtype(self._integers if integers else self.wide if wide else self.dtype)
        self._outputs.append(helper.make_tensor_value_info(name, element, list(shape)))

    def narrow(self, x: str, name: str) -> str:
        """A tensor of type `wide` as `dtype`; itself where these are one."""
        return x if self.wide == self.dtype else self._cast(x, name, self.dtype)

    def widen(self, x: str, name: str) -> str:
        """A tensor of type `dtype` as `wide`; itself where these are one."""
        return x if self.wide == self.dtype else self._cast(x, name, self.wide)

    def _cast(self, x: str, name: str, dtype: np.dtype) -> str:
        return self.node("Cast", [x], name, to=int(helper.np_dtype_to_tensor_dtype(dtype)))

    def constant(self, name: str, value: np.ndarray | Sequence[int]) -> str:
        """An initializer; floating-point values take the model's type, integers become int64.

        A float16 network's are float32 and rounded in the graph, which runtimes do once, at loading: so all precisions
        share them.
        """
        array = np.asarray(value)
        is_half = array.dtype.kind == "f" and self.dtype == np.float16
        array = array.astype(self.wide if array.dtype.kind == "f" else np.int64)
        if name in self._initializers and not np.array_equal(numpy_helper.to_array(self._initializers[name]), array):
            raise ValueError(f"two different constants are called {name}")
        known = name in self._initializers
        self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if not is_half:
            return name
        return f"{name}/half" if known else self._cast(name, f"{name}/half", self.dtype)

    def node(self, op: str, inputs: Sequence[str], name: str, **attributes) -> str:
        self._nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def support_mean(self, support_term: str, query_term: str, weights: str, name: str,
                     outputs: Sequence[str], pool: bool, negative_slope: float) -> list[str]:
        """The custom operation (see support_mean.py); `outputs` are suffixes for its outputs, as many as are read.

        The node names all that the function has: shape inference of functions wants them all.
        """
        op = "SupportMeanPool" if pool else "SupportMean"
        names = [f"{name}/{suffix}" for suffix in outputs]
        unread = [f"{name}/unread_{i}" for i in range(len(names), OUTPUTS[op])]
        node = helper.make_node(
            op, [support_term, query_term, weights], names + unread, name=name, domain=DOMAIN,
            negative_slope=float(negative_slope), plugin_version="1", plugin_namespace=DOMAIN)
        node.attribute.append(helper.make_attribute("outputs", len(names)))  # make_node has a parameter of this name
        self._nodes.append(node)
        return names

    # Operations used in several places --------------------------------------------------------------------------

    def conv(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None = None,
             pads: Sequence[int] | None = None) -> str:
        """Convolution with stride 1; `pads` is (top, left, bottom, right), by default what keeps the size."""
        if pads is None:
            top, left = weight.shape[2] // 2, weight.shape[3] // 2
            pads = (top, left, top, left)
        attributes = {"kernel_shape": list(weight.shape[2:]), "pads": list(pads)}
        if self.quantisation is not None and name in self.quantisation.inputs:
            return self._quantised_conv(x, name, weight, bias, attributes)
        inputs = [x, self.constant(f"{name}/weight", weight)]
        if bias is not None:
            inputs.append(self.constant(f"{name}/bias", bias))
        return self.node("Conv", inputs, name, **attributes)

    def _quantised_conv(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None, attributes: dict) -> str:
        """The same between QuantizeLinear and DequantizeLinear, from which runtimes make an int8 convolution."""
        plan = self.quantisation
        scale = np.float32(plan.inputs[name])
        integers, scales = quantise_weight(weight, bias, float(scale))
        inputs = [self.rounded(x, f"{name}/input", scale), self.dequantised(f"{name}/weight", integers, scales)]
        if bias is not None and plan.cpu_kernels:
            steps = scale * scales
            integers = np.round(bias / steps.astype(np.float64)).astype(np.int32)
            inputs.append(self.dequantised(f"{name}/bias", integers, steps))
        elif bias is not None:
            inputs.append(self.constant(f"{name}/bias", bias))
        if not plan.cpu_kernels or name not in plan.outputs:
            return self.node("Conv", inputs, name, **attributes)
        return self.rounded(self.node("Conv", inputs, name, **attributes), f"{name}/output",
                            np.float32(plan.outputs[name]))

    def rounded(self, x: str, name: str, scale: np.float32) -> str:
        """x rounded to int8 and back, so that a runtime may keep it as int8; x itself where it came from integers."""
        if self._rounded.get(x) == scale:
            return x
        return self.from_integers(self.to_integers(x, name, scale), name, scale)

    def to_integers(self, x: str, name: str, scale: np.float32) -> str:
        return self.node("QuantizeLinear", [x, *self._limits(name, scale)], f"{name}/q")

    def from_integers(self, x: str, name: str, scale: np.float32) -> str:
        out = self.node("DequantizeLinear", [x, *self._limits(name, scale)], f"{name}/dq")
        self._rounded[out] = scale
        return out

    def _limits(self, name: str, scale: np.float32) -> list[str]:
        zero = self._integers.type(128 if self.quantisation.cpu_kernels else 0)
        return [self._raw(f"{name}/scale", scale), self._raw(f"{name}/zero_point", zero)]

    @property
    def _integers(self) -> np.dtype:
        """Type of quantised maps."""
        return np.dtype(np.uint8 if self.quantisation.cpu_kernels else np.int8)

    def dequantised(self, name: str, integers: np.ndarray, scales: np.ndarray) -> str:
        """A constant kept as integers with a scale for each of its first axis."""
        zero_points = np.zeros(scales.shape, integers.dtype)
        inputs = [self._raw(f"{name}/integers", integers), self._raw(f"{name}/scales", scales),
                  self._raw(f"{name}/zero_points", zero_points)]
        return self.node("DequantizeLinear", inputs, f"{name}/dq", axis=0)

    def _raw(self, name: str, value: np.ndarray) -> str:
        """An initializer of the value's own type."""
        self._initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def leaky_relu(self, x: str, name: str, slope: float) -> str:
        return self.node("LeakyRelu", [x], name, alpha=float(slope))

    def upsample(self, x: str, name: str) -> str:
        """(N,C,H,W) -> (N,C,2H,2W), bilinear with aligned corners."""
        scales = "upsample/scales"
        # Scales are float32 whatever the model's type is.
        self._initializers[scales] = numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), scales)
        return self.node("Resize", [x, "", scales], name, mode="linear", coordinate_transformation_mode="align_corners")

    def downsample(self, x: str, name: str, kind: str) -> str:
        """(N,C,H,W) -> (N,C,H/2,W/2), max pool or bilinear at half-pixel centres (the mean of 2x2)."""
        op = "MaxPool" if kind == "max_pool" else "AveragePool"
        return self.node(op, [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def concat(self, tensors: Sequence[str], name: str, axis: int = 1) -> str:
        return self.node("Concat", tensors, name, axis=axis)

    def slice(self, x: str, name: str, axis: int, start: int, end: int | None) -> str:
        limits = [self.constant(f"int/{value}", [value]) for value in (start, 2**31 - 1 if end is None else end, axis)]
        return self.node("Slice", [x, *limits], name)

    def reshape(self, x: str, name: str, shape: Sequence[int | str]) -> str:
        """`shape` is made of integers (-1: the rest) and names of 1-D shape tensors, concatenated."""
        parts = [self.constant(f"int/{p}", [p]) if isinstance(p, int) else p for p in shape]
        return self.node("Reshape", [x, self.concat(parts, f"{name}/shape", axis=0)], name)

    def unsqueeze(self, x: str, name: str, axis: int) -> str:
        return self.node("Unsqueeze", [x, self.constant(f"int/{axis}", [axis])], name)

    def shape(self, x: str, name: str, start: int, end: int | None = None) -> str:
        limits = {"start": start} if end is None else {"start": start, "end": end}
        return self.node("Shape", [x], name, **limits)

    # Closing ----------------------------------------------------------------------------------------------------

    def model(self, name: str, metadata: Mapping[str, str], producer_version: str) -> onnx.ModelProto:
        """Close the graph; passes the ONNX checker and strict shape inference or raises what they raise."""
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._initializers.values()))
        used = {node.op_type for node in self._nodes if node.domain == DOMAIN}
        imports = [helper.make_opsetid("", OPSET)]
        if used:
            imports.append(helper.make_opsetid(DOMAIN, DOMAIN_VERSION))
        model = helper.make_model(
            graph, producer_name="universeg_rt", producer_version=producer_version, opset_imports=imports, functions=[
                f for f in support_mean_functions(OPSET, self.wide != self.dtype, self.wide_means) if f.name in used
            ])
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model
