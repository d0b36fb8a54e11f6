"""The kernels' own code run on the CPU, on NumPy arrays: what the tests compare with reference.py.

Needs the compiled module `universeg_rt.kernels._support_mean_host` (`python -m universeg_rt.kernels.build --host`).
Nothing that must run without it imports this file.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from universeg_rt.errors import InputError, RunnerError

from ..reference import DTYPES

FORMS = {"mean": 0, "pool": 1, "conv_pool": 2}
KERNELS = {"mean": (1, 2, 3, 4, 5), "pool": (1, 2, 3, 4, 5), "conv_pool": (1, 2, 3)}
LAYOUTS = ("chw", "hwc")
AXES = {"chw": ("channels", "height", "width"), "hwc": ("height", "width", "channels")}
BUFFERS = ("support", "query", "weights", "convolution", "border", "mean", "pooled_mean", "pooled", "activated")


def module() -> ModuleType:
    """The compiled module; RunnerError names the command that builds it."""
    try:
        from universeg_rt.kernels import _support_mean_host
    except ImportError as error:
        raise RunnerError(
            f"the host build of the kernels is not there ({error}); run `python -m universeg_rt.kernels.build --host`"
        ) from None
    return _support_mean_host


def problem(form: str, support: np.ndarray, query: np.ndarray, *, kernel: int = 0, activated: bool = False,
            negative_slope: float = 0.01, layout: str = "chw") -> dict:
    """The problem that arrays of these shapes and this type pose; shapes are not checked here.

    layout: of the maps, the arrays' last three axes, `chw` or `hwc`; form conv_pool has the first alone.
    """
    if form not in FORMS:
        raise InputError(f"form is {form!r}; accepted: {', '.join(FORMS)}")
    name = support.dtype.name
    if name not in DTYPES or query.dtype != support.dtype:
        raise InputError(f"support is {support.dtype} and query {query.dtype}; give one type of {', '.join(DTYPES)}")
    if form == "conv_pool":
        support = support[None]
    return {
        "form": FORMS[form], "dtype": DTYPES.index(name), "kernel": kernel, "activated": int(activated),
        "layout": LAYOUTS.index(layout), "negative_slope": negative_slope, "queries": query.shape[0],
        "support_queries": support.shape[0], "sets": support.shape[1], "query_sets": query.shape[1],
        "entries": support.shape[2], **dict(zip(AXES[layout], query.shape[3:], strict=True)),
    }


def output_shapes(values: dict) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs that a problem has, by name."""
    b, k, s, c, h, w = (values[n] for n in ("queries", "sets", "entries", "channels", "height", "width"))
    full, half = (c, h, w), (c, h // 2, w // 2)
    if values["layout"]:
        full, half = (h, w, c), (h // 2, w // 2, c)
    shapes = {"mean": (b, k, *full)}
    if values["form"] != FORMS["mean"]:
        shapes |= {"pooled_mean": (b, k, *half), "pooled": (b, k, s, *half)}
    if values["activated"]:
        shapes["activated"] = (b, k, s, *full)
    return shapes


def aligned(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array that starts at a multiple of 16 bytes, filled with 0xff (NaN) so that unwritten elements show."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.full(size + 16, 0xFF, np.uint8)
    start = -raw.ctypes.data % 16
    return raw[start : start + size].view(dtype).reshape(shape)


def run(form: str, support, query, weights, convolution=None, border=None, *, kernel: int = 0, activated: bool = False,
        negative_slope: float = 0.01, order: str = "forward", multiprocessors: int = 132, layout: str = "chw",
        native: ModuleType | None = None) -> tuple[dict[str, np.ndarray], dict]:
    """(outputs by name, launch) of one kernel on the CPU; every access is checked and every output must be complete.

    order: `forward`, `reverse` or `shuffled` order of a block's threads between two barriers.
    """
    native = native or module()
    values = problem(form, support, query, kernel=kernel, activated=activated, negative_slope=negative_slope,
                     layout=layout)
    arrays = {}
    for name, array in zip(BUFFERS[:5], (support, query, weights, convolution, border)):
        if array is not None:
            arrays[name] = aligned(array.shape, array.dtype)
            arrays[name][...] = array
    outputs = {name: aligned(shape, support.dtype) for name, shape in output_shapes(values).items()}
    buffers = {name: (array.ctypes.data, array.nbytes) for name, array in (arrays | outputs).items()}
    launch = native.run(values, buffers, multiprocessors=multiprocessors, order=order)
    return outputs, launch
