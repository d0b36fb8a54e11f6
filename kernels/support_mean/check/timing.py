"""The machine's copy bandwidth, and every kernel against PyTorch's operators: interleaved, medians and spread."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from functools import partial

from .. import reference
from ..host import module as host
from . import cases
from .cases import Sizes
from .devices import Device, open_device

ROUNDS = 15  # timed runs of each variant, one after another in turn
WARM = 2  # rounds before them that do not count
TARGET = 3e-3  # seconds of one timed run
DRY_ROUNDS, DRY_TARGET = 2, 0.0


def copy_bandwidth(state: dict, entry: dict, write) -> None:
    """Bytes a second, read plus written, of a large device-to-device copy: the ceiling of every kernel here."""
    device = open_device(state)
    torch = device.torch
    count = (1 << 18) if state["dry"] else (1 << 32)
    source = torch.randint(0, 255, (count,), dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    seconds, _ = device.timer(partial(target.copy_, source), 1)
    times = [seconds() for _ in range(WARM + ROUNDS)][WARM:]
    entry["bytes"] = 2 * count
    entry["gigabytes_per_second"] = 2 * count / statistics.median(times) / 1e9
    entry["spread"] = [2 * count / t / 1e9 for t in (max(times), min(times))]
    entry["passed"] = bool(torch.equal(source, target))
    state["copy"] = entry["gigabytes_per_second"]
    state["say"](f"copy: {state['copy']:.0f} GB/s")
    del source, target
    device.free()


def configurations(dry: bool, dtype: str) -> list[tuple[str, Sizes, bool, str]]:
    """(form, sizes, activated, layout): v1's first block at S = 16, 64, 256; the paper's form with and without its
    maps. With channels last in 16 bits, as TensorRT's convolutions and PyTorch's have them."""
    channels, size = (8, 16) if dry else (64, 128)
    out: list[tuple[str, Sizes, bool]] = []
    for entries in (2, 3) if dry else (16, 64, 256):
        sizes = Sizes(entries=entries, channels=channels, height=size, width=size)
        out += [("pool", sizes, False), ("mean", sizes, False), ("mean", sizes, True), ("conv_pool", sizes, False)]
    shared = Sizes(queries=4, entries=3 if dry else 64, channels=channels, height=size, width=size)
    out += [("pool", shared, False), ("mean", shared, False)]
    return [(*each, layout) for each in out for layout in cases.layouts(each[0])
            if layout == "chw" or dtype != "float32"]


def time_kernels(state: dict, entry: dict, write) -> None:
    """One row a variant: median and spread of seconds, bytes that must move, share of the copy bandwidth."""
    device = open_device(state)
    if "copy" not in state:
        raise RuntimeError("the copy bandwidth was not measured; run the step bandwidth too")
    if hasattr(device.torch.backends, "cudnn"):
        device.torch.backends.cudnn.allow_tf32 = False  # float32 means float32, here as in the kernels
    entry["rows"] = rows = []
    entry["passed"] = True
    for dtype in sorted(reference.DTYPES, key=lambda name: name != "float16"):  # first what is run most
        for form, sizes, activated, layout in configurations(state["dry"], dtype):
            if time.monotonic() > state["deadline"]:
                entry.update(passed=False, why=f"the time limit was reached before {form} {dtype} {layout} {sizes}")
                return
            new = _time_one(device, state["copy"], form, sizes, dtype, activated, layout,
                            DRY_ROUNDS if state["dry"] else ROUNDS, DRY_TARGET if state["dry"] else TARGET)
            rows += new
            best = min((r for r in new if r["variant"] != "pytorch"), key=lambda r: r["median"])
            state["say"](f"{form} {dtype} {layout} {sizes}{' activated' if activated else ''}: {best['variant']} "
                         f"{best['median'] * 1e6:.1f} us, {best['of_copy']:.0%} of copy, "
                         f"{best['over_pytorch']:.2f}x PyTorch")
            write()
            device.free()


def _time_one(device: Device, copy: float, form: str, sizes: Sizes, dtype: str, activated: bool, layout: str,
              rounds: int, target: float) -> list[dict]:
    torch, kind = device.torch, device.torch_dtype(dtype)
    s = sizes
    raw = (s.sets, s.entries, 2, s.height, s.width)
    sides = [getattr(s, axis) for axis in host.AXES[layout]]
    term = (s.support_queries, s.sets, s.entries, *sides)

    def new_set() -> dict:
        """Inputs drawn on the device; random, since zeros are faster."""
        def draw(*shape: int, type=kind):
            return torch.randn(shape, device=device.name).to(type)

        out = {"support": draw(*(raw if form == "conv_pool" else term)),
               "query": draw(s.queries, s.query_sets, 1, *sides),
               "weights": torch.full((s.sets, s.entries), 1.0 / s.entries, device=device.name)}
        if form == "conv_pool":
            out["convolution"] = draw(s.channels, 2, 5, 5, type=torch.float32)
            out["border"] = draw(s.channels, 2, reference.BORDER, type=torch.float32)
        return out

    problem = {"form": host.FORMS[form], "dtype": reference.DTYPES.index(dtype), "activated": int(activated),
               "layout": host.LAYOUTS.index(layout), "negative_slope": 0.01, "queries": s.queries,
               "support_queries": s.support_queries, "sets": s.sets, "query_sets": s.query_sets,
               "entries": s.entries, "channels": s.channels, "height": s.height, "width": s.width, "kernel": 0}
    sets = [new_set()]
    outputs = device.outputs(problem)
    moved = sum(t.numel() * t.element_size() for t in (*sets[0].values(), *outputs.values()))
    # Several sets where one would stay in the cache between calls: their traffic would not reach memory.
    for _ in range(min(16, math.ceil(4 * device.cache_bytes / moved)) - 1):
        sets.append(new_set())

    variants = {"pytorch": _cycle([_pytorch(torch, form, tensors, layout) for tensors in sets])}
    for kernel in host.KERNELS[form]:
        given = problem | {"kernel": kernel}
        calls = [device.launcher(given, tensors | outputs) for tensors in sets]
        try:
            calls[0]()
        except Exception as error:  # a kernel that does not serve this shape says "use kernel 0"
            if "use kernel 0" not in str(error):
                raise
            continue
        variants[f"kernel {kernel}"] = _cycle(calls)
    timers, captured = {}, {}
    for name, function in variants.items():
        once, _ = device.timer(function, 4, capture=False)
        repeats = max(1, min(200, int(target / max(min(once(), once()), 1e-6))))
        timers[name], captured[name] = device.timer(function, repeats)
    times: dict[str, list[float]] = {name: [] for name in timers}
    for round_number in range(WARM + rounds):
        for name, seconds in timers.items():
            found = seconds()
            if round_number >= WARM:
                times[name].append(found)
    ordinary = statistics.median(times["pytorch"])
    rows = []
    for name, values in times.items():
        values.sort()
        median = statistics.median(values)
        rows.append({
            "form": form, "dtype": dtype, "layout": layout, "activated": activated, "variant": name,
            "entries": s.entries, "queries": s.queries, "sizes": str(s), "median": median,
            "low": values[len(values) // 10], "high": values[-1 - len(values) // 10], "bytes": moved,
            "gigabytes_per_second": moved / median / 1e9, "of_copy": moved / median / 1e9 / copy,
            "over_pytorch": ordinary / median, "input_sets": len(sets), "graph": captured[name],
        })
    return rows


def _cycle(functions: list):
    turn = itertools.cycle(functions)
    return lambda: next(turn)()


def _pytorch(torch, form: str, tensors: dict, layout: str):
    """The same work by PyTorch's operators; with the convolution, the 5x5 one without the border's correction. Channels
    last are a matter of strides there."""
    functional, support, query = torch.nn.functional, tensors["support"], tensors["query"]
    if layout == "hwc":
        support, query = support.movedim(-1, -3), query.movedim(-1, -3)

    def call():
        term = support
        if form == "conv_pool":
            sets, entries, _, height, width = support.shape
            kernel = tensors["convolution"].to(support.dtype)
            term = functional.conv2d(support.flatten(0, 1), kernel, padding=2).view(1, sets, entries, -1, height, width)
        activated = functional.leaky_relu(term + query, 0.01)
        mean = activated.mean(2)
        if form == "mean":
            return mean, activated
        half = [n // 2 for n in query.shape[4:]]
        pooled = functional.max_pool2d(activated.flatten(0, 2), 2).view(*activated.shape[:4], *half)
        return mean, pooled, pooled.mean(2)

    return call


def table(values: dict) -> list[str]:
    """The timing rows as lines of text; nothing where none were measured."""
    rows = values["steps"].get("timing", {}).get("rows", [])
    if not rows:
        return []
    copy = values["steps"]["bandwidth"]["gigabytes_per_second"]
    out = [
        f"copy bandwidth {copy:.0f} GB/s" + (" (dry run: times mean nothing)" if values["dry_run"] else ""),
        f"{'form':10}{'type':10}{'layout':7}{'S':>4}{'B':>3} "
        f"{'variant':10}{'median us':>11}{'10-90 %':>20}{'GB/s':>7}{'of copy':>9}"
        f"{'x PyTorch':>11}"
    ]
    for r in rows:
        form = r["form"] + ("+z" if r["activated"] else "")
        spread = f"{r['low'] * 1e6:.1f} - {r['high'] * 1e6:.1f}"
        out.append(f"{form:10}{r['dtype']:10}{r['layout']:7}{r['entries']:4}{r['queries']:3} {r['variant']:10}"
                   f"{r['median'] * 1e6:11.1f}{spread:>20}"
                   f"{r['gigabytes_per_second']:7.0f}{r['of_copy']:9.0%}{r['over_pytorch']:11.2f}")
    return out
