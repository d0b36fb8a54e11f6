"""One builder for TensorRT 8.5 to 11 and TensorRT-RTX: each difference is a question to the module, never to its
number.

`trt` is always the imported module. Where a version lacks what was asked for by name, functions raise InputError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import ModuleType

from universeg_rt.errors import InputError

LEVELS = {"ampere+": "AMPERE_PLUS", "same": "SAME_COMPUTE_CAPABILITY"}

Shapes = Mapping[str, Sequence[Sequence[int]]]  # input -> its smallest, best and largest shape


def is_strongly_typed(trt: ModuleType) -> bool:
    """Whether networks take their types from the ONNX file (strong), or the builder chooses them (weak).

    STRONGLY_TYPED came with TensorRT 9.1; from then on it is always used, since precision lives in our ONNX files; in
    11 there is nothing else.
    """
    return getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None) is not None


def create_network(trt: ModuleType, builder: object) -> object:
    """TensorRT 8 wants EXPLICIT_BATCH, 10 ignores it, 11 has it no more."""
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return builder.create_network(flags)


def set_precision(trt: ModuleType, config: object, network: object, allowed: Collection[str],
                  float32_tensors: Collection[str]) -> None:
    """For weakly typed networks: allow the types that the file holds, and keep its float32 tensors (the means) at
    float32.

    allowed: "FP16" where the file has float16 tensors, "INT8" where it has Q/DQ nodes. float32_tensors: by name.
    """
    for name in allowed:
        config.set_flag(getattr(trt.BuilderFlag, name))
    if "FP16" not in allowed or not float32_tensors:
        return
    if hasattr(trt.BuilderFlag, "OBEY_PRECISION_CONSTRAINTS"):
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    floats, wanted = (trt.DataType.FLOAT, trt.DataType.HALF), set(float32_tensors)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        held = [
            i for i, tensor in enumerate(outputs)
            if tensor is not None and tensor.name in wanted and tensor.dtype in floats
        ]
        if held and layer.type not in (trt.LayerType.CONSTANT, trt.LayerType.SHAPE):
            layer.precision = trt.DataType.FLOAT
            for i in held:
                layer.set_output_type(i, trt.DataType.FLOAT)


def set_tf32(trt: ModuleType, config: object, on: bool) -> None:
    """Whether float32 convolutions and products may round their inputs to TF32's 10 bits; the vendor's own default is
    yes."""
    (config.set_flag if on else config.clear_flag)(trt.BuilderFlag.TF32)


def set_workspace(trt: ModuleType, config: object, size: int | None) -> None:
    """The most device memory in bytes that running may take beside weights;
    None keeps the vendor's default, all of it."""
    if size is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)


def set_level(config: object, level: int | None) -> None:
    """How long the builder searches, 0 to 5 (TensorRT 8.6 and later); None leaves the vendor's default."""
    if level is None:
        return
    if not hasattr(config, "builder_optimization_level"):
        raise InputError("this version has no optimization levels; leave --optimization-level out")
    config.builder_optimization_level = level


def set_hardware(trt: ModuleType, config: object, level: str) -> None:
    """Whether the engine is for this GPU ("none"), for all of its compute capability ("same") or for all from Ampere on
    ("ampere+")."""
    if level == "none":
        return
    value = getattr(getattr(trt, "HardwareCompatibilityLevel", None), LEVELS[level], None)
    if value is None:
        raise InputError(f"this version has no hardware compatibility {level}; leave --hardware-compatibility out")
    config.hardware_compatibility_level = value


def set_capabilities(trt: ModuleType, config: object, capabilities: Sequence[str]) -> None:
    """TensorRT-RTX: compute capabilities that the engine is for, as ("8.6", "8.9"); none: its default, from 8.0 on."""
    if not capabilities:
        return
    known = getattr(trt, "ComputeCapability", None)
    if known is None or not hasattr(config, "set_compute_capability"):
        raise InputError("this version cannot choose compute capabilities; leave --compute-capability out")
    values = [getattr(known, f"SM{text.replace('.', '')}", None) for text in capabilities]
    if None in values:
        names = ", ".join(sorted(n for n in getattr(known, "__members__", {}) if n.startswith("SM")))
        raise InputError(f"--compute-capability {' '.join(capabilities)}: this version knows only {names}")
    config.num_compute_capabilities = len(values)
    for index, value in enumerate(values):
        config.set_compute_capability(value, index)


def add_profile(builder: object, config: object, network: object, shapes: Shapes) -> None:
    """One optimisation profile over all inputs;
    InputError where the inputs differ or the library refuses the shapes."""
    names = [network.get_input(i).name for i in range(network.num_inputs)]
    if set(names) != set(shapes):
        raise InputError(
            f"the parsed network has the inputs {', '.join(sorted(names))}, the profile {', '.join(sorted(shapes))}")
    profile = builder.create_optimization_profile()
    for name in names:
        profile.set_shape(name, *(tuple(shape) for shape in shapes[name]))
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"the library refuses the profile {dict(shapes)}")


def set_timing_caches(config: object, caches: Sequence[bytes], complaints: Sequence[str]) -> str:
    """Give the builder the timings of earlier builds. Returns why some were set aside, or nothing where all were taken.

    complaints: a live list of the library's warnings and errors; newer versions only complain, and go on from nothing.
    """
    before, refused = len(complaints), False
    cache = config.create_timing_cache(b"")
    for content in caches:
        other = config.create_timing_cache(content)
        refused |= other is None or not cache.combine(other, False)
    config.set_timing_cache(cache, False)
    if len(complaints) > before:
        return complaints[-1]
    return "it was made by another version or for another GPU" if refused else ""


def timing_cache(config: object) -> bytes:
    """The timings after a build; empty where the library keeps none."""
    cache = config.get_timing_cache()
    return bytes(cache.serialize()) if cache is not None else b""


def parser_errors(parser: object) -> list[str]:
    """What the parser complains of, with the node's name and operator where the version tells them."""
    out = []
    for error in (parser.get_error(i) for i in range(parser.num_errors)):
        name, operator = _call(error, "node_name"), _call(error, "node_operator")
        where = f"node {name or 'number ' + str(_call(error, 'node'))}" + (f" ({operator})" if operator else "")
        out.append(f"{where}: {_call(error, 'desc')}")
    return out


def _call(value: object, name: str) -> object:
    method = getattr(value, name, None)
    return method() if method is not None else ""
