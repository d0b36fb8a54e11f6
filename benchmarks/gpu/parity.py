"""Every contender against the reference network, in task units, by the rules of the export's gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from universeg_rt.export.gate.inputs import KINDS
from universeg_rt.export.gate.parity import TOLERANCES, Cases, Reference, compare, over
from universeg_rt.kernels.support_mean.check.steps import one_line

from . import deadline, machine, references
from .timing import WARM


def run_parity(state: dict, entry: dict) -> None:
    """The worst figures of each contender, and whether each is within its precision's tolerance."""
    small, end = state["device"] == "cpu", deadline.of_step(state, "parity")
    cases = Cases(image_sizes=(state["grid"], ), support_sizes=tuple(s for s in state["support_sizes"] if s <= 64)
                  or (1, ), members=(1, ) if small or max(state["members"]) == 1 else (1, 3))
    reference = Reference(state["spec"], state["weights"])
    entry["contenders"], entry["failed"], entry["skipped"] = {}, [], {}
    if state["options"].references is not None:
        references.load(state["options"].references, reference)
        entry["reference"] = state["options"].references.name
    elif state["device"] != "cpu" and not state["options"].cpu_reference:
        reference = _DeviceReference(state, reference, replace(cases, support_sizes=(min(cases.support_sizes),)), entry)
        if entry["failed"]:
            return
    passes = [("", model, cases), (" replayed", replayed, replace(cases, kinds=KINDS[-1:]))]
    if max(cases.members) == 1:  # a GPU's libraries search their kernels anew for each shape: several members once
        passes.append((" members", model, Cases(cases.image_sizes, (min(cases.support_sizes),), (3,), KINDS[-1:])))
    for more, make, some in passes:
        for name, contender in state["contenders"].items():
            if (name == "reference fp32" and small) or (more and name not in entry["contenders"]):
                continue  # the very same computation, or one that does not run
            try:
                report, refused = compare({name: make(contender)}, TOLERANCES[contender.precision], some, reference,
                                          partial(deadline.until, end))
            except deadline.OutOfTime:
                entry.update(passed=False, why=f"the time limit was reached at {name}{more}")
                return
            except Exception as error:
                entry["skipped"][name + more] = one_line(error)
                state["say"](f"parity {name}{more}: skipped, {one_line(error)}")
                continue
            if report.results:
                _judge(state, entry, contender.precision, name, more, report, len(refused))
            else:
                entry["skipped"][name + more] = next(iter(refused.values()), "no case")
            machine.free(state)
    entry["passed"] = bool(entry["contenders"]) and not entry["failed"]
    if not entry["passed"]:
        entry[
            "why"] = f"over tolerance: {', '.join(entry['failed'])}" if entry["failed"] else "nothing could be compared"


def _judge(state: dict, entry: dict, precision: str, name: str, more: str, report, refused: int) -> None:
    """The figures of a pass: the first are the contender's own, the others go below them by the pass's name."""
    figures, within = report.summary()["models"][name], not over(report)
    found = {"within": within, **figures, "refused": refused}
    if more:
        entry["contenders"][name][more.strip()] = found
        entry["contenders"][name]["within"] &= within
    else:
        entry["contenders"][name] = {"precision": precision, **found}
    state["say"](
        f"parity {name}{more}: {'within' if within else 'OVER'}, logit error {figures['largest_logit_error']:.2e}")
    if not within:
        entry["failed"].append(name + more)
    state["write"]()


class _DeviceReference(Reference):
    """The reference in float32 on the device. What it gives at the smallest S is held against the CPU's, and said in
    `entry`."""

    def __init__(self, state: dict, on_cpu: Reference, cases: Cases, entry: dict) -> None:
        super().__init__(state["spec"], state["weights"], state["device"])
        self.torch = state["torch"]

        def logits(support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> np.ndarray:
            return self._run(support, weights, query, False)

        report, _ = compare({"reference": logits}, TOLERANCES["fp32"], cases, on_cpu)
        entry["reference"] = {"device": state["device"], **report.summary()["models"]["reference"]}
        if found := over(report):
            entry["failed"].append("the reference on the device")
            entry.update(passed=False, why=f"the reference on the device differs from that on the CPU: {found[0]}")

    def _run(self, support: np.ndarray, entry_weights: np.ndarray, query: np.ndarray, half: bool) -> np.ndarray:
        with machine.tf32(self.torch, False):
            return super()._run(support, entry_weights, query, half)


def model(contender) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    return lambda support, weights, query: contender.run(contender.prepare(support, weights), query)


def replayed(contender) -> Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]:
    """What it gives once it has captured its graph, on another query."""

    def run(support: np.ndarray, weights: np.ndarray, query: np.ndarray) -> np.ndarray:
        prepared = contender.prepare(support, weights)
        for _ in range(WARM):
            contender.run(prepared, 1 - query)
        return contender.run(prepared, query)

    return run


def table(values: dict) -> list[str]:
    """The worst figures as lines of text."""
    found = values["steps"].get("parity", {}).get("contenders", {})
    if not found:
        return []
    out = [
        f"{'parity with the reference':34}{'cases':>7}{'logit error':>14}{'flipped pixels':>18}{'smallest Dice':>15}"
    ]
    for name, f in found.items():
        out.append(f"{name:34}{f['cases']:7}{f['largest_logit_error']:14.2e}{f['flipped_pixels']:9}/{f['pixels']:<8}"
                   f"{f['smallest_dice']:15.6f}" + ("" if f["within"] else "  OVER"))
    return out
