"""The copy of a bundle's ONNX model that a builder is given: every input real, sizes fixed where they never change, and
the support-mean operation either inlined (native operators) or bare (for the plugin)."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import inliner, shape_inference

from universeg_rt.bundle.engine import Profile
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import EngineError

from ..emit.support_mean import DOMAIN

# Names of dynamic dimensions in our models -> which number of a request they are.
DIMENSIONS = {"B": "queries", "K": "sets", "S": "entries", "weight_sets": "sets", "weight_entries": "entries"}
SIDES = {"H": 0, "W": 1}

Shapes = dict[str, list[list[int]]]


@dataclass(frozen=True)
class BuilderModel:
    """model: serialised ONNX. shapes: of each input, the smallest, best and largest. allowed, float32_tensors: for
    weakly typed versions, see `features.set_precision`."""

    model: bytes
    shapes: Shapes
    allowed: tuple[str, ...]
    float32_tensors: tuple[str, ...]


def read_model(model: ModelBytes) -> onnx.ModelProto:
    """One of a bundle's models, all data in it; EngineError where it is no ONNX model."""
    try:
        return onnx.load_model_from_string(model.whole())
    except Exception:  # protobuf raises types of its own
        raise EngineError(f"{model.name} is no ONNX file; give a bundle that universeg-export wrote") from None


def for_builder(model: onnx.ModelProto, profile: Profile, plugin: bool) -> BuilderModel:
    """The copy for one profile, with the plugin's operations or without. EngineError for an input without a profile."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _make_inputs_real(copy.graph)
    _fix_sizes(copy.graph, profile)
    shapes = {value.name: _shapes(value, profile) for value in copy.graph.input}
    inlined = inliner.inline_local_functions(copy)
    allowed, float32_tensors = _types(inlined)
    if plugin:
        _leave_to_plugin(copy)
    return BuilderModel((copy if plugin else inlined).SerializeToString(deterministic=True), shapes, allowed,
                        float32_tensors)


def _make_inputs_real(graph: onnx.GraphProto) -> None:
    """Drop defaults of inputs (`weights`): a parser would take the default for a constant and the input away."""
    inputs = {value.name for value in graph.input}
    for initializer in [i for i in graph.initializer if i.name in inputs]:
        graph.initializer.remove(initializer)


def _fix_sizes(graph: onnx.GraphProto, profile: Profile) -> None:
    """Give dimensions that never change their number, and those of the weights their own name, K and S."""
    for value in (*graph.input, *graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            name = dimension.dim_param
            if name in SIDES:
                dimension.dim_value = profile.image[SIDES[name]]
            elif name in DIMENSIONS:
                low, _, high = getattr(profile, DIMENSIONS[name])
                if low == high:
                    dimension.dim_value = low
                else:
                    dimension.dim_param = {"sets": "K", "entries": "S"}.get(DIMENSIONS[name], name)
    del graph.value_info[:]


def _leave_to_plugin(model: onnx.ModelProto) -> None:
    """Drop the local functions, which TensorRT's parser takes before a plugin, and the outputs that nothing reads,
    which would cost the plugin work: the attribute `outputs` says how many, from the first, are read."""
    del model.functions[:]
    for node in model.graph.node:
        if node.domain == DOMAIN:
            (read,) = (a.i for a in node.attribute if a.name == "outputs")
            del node.output[read:]


def _shapes(value: onnx.ValueInfoProto, profile: Profile) -> list[list[int]]:
    out: list[list[int]] = [[], [], []]
    for dimension in value.type.tensor_type.shape.dim:
        if dimension.dim_param and dimension.dim_param not in DIMENSIONS:
            raise EngineError(f"input {value.name} has a dimension {dimension.dim_param!r} that no profile covers; the "
                              f"profiles are over {', '.join(DIMENSIONS)}: export the bundle again")
        sizes = getattr(profile, DIMENSIONS[dimension.dim_param]) if dimension.dim_param else (dimension.dim_value,) * 3
        for shape, size in zip(out, sizes):
            shape.append(size)
    return out


def _types(model: onnx.ModelProto) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What weakly typed builders must be allowed, and the tensors that they must keep at float32."""
    allowed = ["INT8"] if any(node.op_type == "QuantizeLinear" for node in model.graph.node) else []
    types = {i.name: i.data_type for i in model.graph.initializer}
    typed = shape_inference.infer_shapes(model).graph
    for value in (*typed.input, *typed.output, *typed.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    if onnx.TensorProto.FLOAT16 not in types.values():
        return tuple(allowed), ()
    made = [name for node in model.graph.node for name in node.output]
    return (*allowed, "FP16"), tuple(name for name in made if types.get(name) == onnx.TensorProto.FLOAT)
