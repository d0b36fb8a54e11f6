"""Every kernel against reference.py on the device, for all types and many shapes; also beyond 32-bit indices."""

from __future__ import annotations

import itertools
import time

from universeg_rt.errors import InputError, RunnerError

from .. import reference
from ..host import module as host
from . import cases
from .cases import Sizes
from .devices import Device, open_device

SMALL = (
    Sizes(entries=1, channels=1, height=2, width=2),
    Sizes(queries=3, sets=2, entries=5, channels=4, height=6, width=8),
    Sizes(queries=2, sets=2, entries=5, channels=16, height=5, width=7),  # channels that fill vectors, odd sides
    Sizes(queries=3, support_queries=3, sets=2, query_sets=2, entries=9, channels=3, height=9, width=16),
    Sizes(queries=2, support_queries=2, entries=3, channels=3, height=5, width=7),
    Sizes(queries=5, entries=17, channels=2, height=3, width=24),
    Sizes(entries=257, channels=2, height=8, width=8),
    Sizes(queries=2, sets=3, query_sets=3, entries=4, channels=9, height=17, width=33),
)
REAL = (  # v1's first block and the paper's deepest one
    Sizes(entries=8, channels=64, height=128, width=128),
    Sizes(queries=2, sets=2, entries=5, channels=64, height=64, width=64),
    Sizes(queries=4, sets=1, entries=64, channels=64, height=8, width=8),
)


def check_kernels(state: dict, entry: dict, write) -> None:
    """Errors in units of the largest that rounding explains; a second run on poisoned outputs gives the same bits."""
    device = open_device(state)
    entry["worst"], entry["failures"], entry["runs"], entry["skipped"] = {}, [], 0, {}
    served = []
    for dtype in reference.DTYPES:
        try:
            cases.numpy_dtype(dtype)
            served.append(dtype)
        except RunnerError as error:
            entry["skipped"][dtype] = str(error)
            state["say"](f"correctness {dtype}: skipped, {error}")
    for form in host.FORMS:
        for dtype in served:
            for sizes in SMALL[:5] if state["dry"] else SMALL + REAL:
                if time.monotonic() > state["deadline"]:
                    entry.update(passed=False, why=f"the time limit was reached before {form} {dtype} {sizes}")
                    return
                inputs = cases.make_inputs(form, sizes, dtype, seed=entry["runs"])
                wanted = cases.expected(form, inputs)
                for layout in cases.layouts(form):
                    _check_layout(device, entry, form, sizes, cases.laid_out(inputs, layout), wanted, layout)
        state["say"](f"{form}: {entry['runs']} runs so far, {len(entry['failures'])} failures")
        write()
    entry["passed"] = entry["runs"] > 0 and not entry["failures"]
    if entry["failures"]:
        entry["why"] = entry["failures"][0]


def _check_layout(device: Device, entry: dict, form: str, sizes: Sizes, inputs: dict, wanted: dict,
                  layout: str) -> None:
    tensors = {name: device.tensor(array) for name, array in inputs.items()}
    for kernel in (0, *host.KERNELS[form]):
        for activated in (False, True) if form != "conv_pool" else (False,):
            problem = host.problem(form, inputs["support"], inputs["query"], kernel=kernel, activated=activated,
                                   layout=layout)
            name = f"{form} {inputs['support'].dtype.name} kernel {kernel}" + (layout == "hwc") * " hwc"
            _check_one(device, entry, name, sizes, problem, tensors, wanted)


def _check_one(device: Device, entry: dict, name: str, sizes: Sizes, problem: dict, tensors: dict,
               wanted: dict) -> None:
    results = []
    for _ in range(2):
        outputs = device.outputs(problem)
        try:
            device.launcher(problem, tensors | outputs)()
        except Exception as error:
            if _refused(error):
                return  # this kernel does not serve this shape, and says so
            raise
        device.synchronize()
        results.append({n: device.array(t) for n, t in outputs.items()})
    entry["runs"] += 1
    errors = cases.worst_errors(cases.channels_first(results[0], host.LAYOUTS[problem["layout"]]), wanted)
    worst = max(errors.values())
    entry["worst"][name] = max(worst, entry["worst"].get(name, 0.0))
    if not worst <= 1:
        entry["failures"].append(f"{name} {sizes}: {errors}")
    if any(results[0][n].tobytes() != results[1][n].tobytes() for n in errors):
        entry["failures"].append(f"{name} {sizes}: a second run gave other bits")


def _refused(error: Exception) -> bool:
    """A kernel that does not serve the shape; any other error is a failure."""
    return (isinstance(error, InputError) or type(error).__name__ == "Refused") and "use kernel 0" in str(error)


def check_large(state: dict, entry: dict, write) -> None:
    """Form a with more than 2^31 elements in the support term: indices of 64 bits, checked in slices on the device."""
    device = open_device(state)
    torch = device.torch
    sizes = Sizes(entries=7 if state["dry"] else 2112, channels=64 if not state["dry"] else 8,
                  height=128 if not state["dry"] else 8, width=128 if not state["dry"] else 8)
    entry["elements"] = sizes.entries * sizes.channels * sizes.height * sizes.width
    torch.manual_seed(5)
    values = torch.randn(entry["elements"], dtype=torch.float16, device=device.name)
    others = torch.randn(entry["elements"] // sizes.entries, dtype=torch.float16, device=device.name)
    weights = torch.full((1, sizes.entries), 1.0 / sizes.entries, device=device.name)
    entry["worst"] = {}
    for layout, kernel in itertools.product(host.LAYOUTS, (1, 3, 5)):
        sides = [getattr(sizes, axis) for axis in host.AXES[layout]]
        support, query = values.view(1, 1, sizes.entries, *sides), others.view(1, 1, 1, *sides)
        problem = dict(form=1, dtype=1, kernel=kernel, activated=0, layout=host.LAYOUTS.index(layout),
                       negative_slope=0.01, queries=1, support_queries=1, sets=1, query_sets=1, entries=sizes.entries,
                       channels=sizes.channels, height=sizes.height, width=sizes.width)
        outputs = device.outputs(problem)
        device.launcher(problem, dict(support=support, query=query, weights=weights) | outputs)()
        device.synchronize()
        if layout == "hwc":  # views with channels first, as PyTorch's operators count axes
            support, query = support.movedim(-1, -3), query.movedim(-1, -3)
            outputs = {name: tensor.movedim(-1, -3) for name, tensor in outputs.items()}
        name = f"kernel {kernel}" + (layout == "hwc") * " hwc"
        entry["worst"][name] = _worst_of_large(torch, support, query, outputs)
        del outputs
        write()
    entry["passed"] = all(worst <= 1.01 for worst in entry["worst"].values())
    del values, support
    device.free()


def _worst_of_large(torch, support, query, outputs: dict) -> float:
    """The largest error in units of what rounding explains, of maps with channels first and equal weights."""
    entries = support.shape[2]
    mean = torch.zeros(support.shape[3:], dtype=torch.float64, device=support.device)
    worst = 0.0
    for first in range(0, entries, 64):
        part = slice(first, min(first + 64, entries))
        x = torch.nn.functional.leaky_relu(support[0, 0, part].double() + query[0, 0].double(), 0.01)
        mean += x.sum(0) / entries
        pooled = torch.nn.functional.max_pool2d(x, 2)
        error = (outputs["pooled"][0, 0, part].double() - pooled).abs() / (pooled.abs() * 2**-11 + 1e-6)
        worst = max(worst, float(error.nan_to_num(nan=float("inf")).max()))
    error = (outputs["mean"][0, 0].double() - mean).abs() / (mean.abs() * 2**-11 + 1e-4)
    return max(worst, float(error.nan_to_num(nan=float("inf")).max()))
