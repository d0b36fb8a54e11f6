"""The parity gate: every exported model against the reference network, on random and on image-like inputs.

What a model is held against depends on its precision: float32 on fixed figures (`Tolerance`), half precision on the
error of the reference run plainly in half precision (`HalfTolerance`), int8 on the masks (`MaskTolerance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from universeg_rt.errors import InputError, ParityError
from universeg_rt.imaging.metrics import dice
from universeg_rt.spec import NetworkSpec

from .inputs import KINDS, make_inputs
from .memory import kept_memory

SUPPORT_SIZES = (1, 2, 7, 16, 64)
MEMBERS = (1, 3)
IMAGE_SIZES = ((128, 128), (64, 96))

# (support (K,S,2,H,W), weights (K,S), query (B,1,H,W)) -> logits (B,K,1,H,W)
Model = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Tolerance:
    """The largest logit error, the largest share of pixels whose mask differs at probability 0.5, the smallest Dice."""

    logit_error: float = 1e-3
    flipped: float = 1e-3
    dice: float = 0.999

    def admits(self, r: CaseResult) -> bool:
        # Written so that a NaN fails; so are the others.
        return bool(r.logit_error <= self.logit_error and r.flipped <= self.flipped * r.pixels and r.dice >= self.dice)


@dataclass(frozen=True)
class HalfTolerance(Tolerance):
    """Half precision: at most `times` the logit error of the reference run plainly in half precision on the same case.

    logit_error: what is accepted where the plain run is better still. flipped and dice: of the masks, or `times` what
    the plain run gives where that is worse. single: `times` of a support of one entry: no error averages out.
    """

    logit_error: float = 1e-3
    flipped: float = 5e-3
    dice: float = 0.99
    times: float = 2.0
    single: float = 3.0

    def admits(self, r: CaseResult) -> bool:
        if r.half is None:
            raise ValueError("half precision is judged beside the reference in half precision, which was not run")
        plain = r.half.logit_error if np.isfinite(r.half.logit_error) else 0.0  # overflow there allows nothing here
        times = self.single if r.case.support_size == 1 else self.times
        return bool(r.logit_error <= max(self.logit_error, times * plain)
                    and r.flipped <= max(self.flipped * r.pixels, times * r.half.flipped)
                    and 1 - r.dice <= max(1 - self.dice, times * (1 - r.half.dice)))


@dataclass(frozen=True)
class MaskTolerance:
    """Int8: the largest share of flipped pixels of any case and of all together; logits need only be finite.

    entries: the smallest support whose case is judged by itself. Over one entry no error averages out, and where the
    network is undecided whole structures flip.
    """

    flipped: float = 0.02
    flipped_in_all: float = 0.005
    entries: int = 2

    def admits(self, r: CaseResult) -> bool:
        judged = r.case.support_size >= self.entries
        return bool(np.isfinite(r.logit_error) and (r.flipped <= self.flipped * r.pixels or not judged))


AnyTolerance = Tolerance | MaskTolerance
# By precision; tf32 is float32 whose products have half precision's digits.
TOLERANCES: dict[str, AnyTolerance] = {
    "fp32": Tolerance(), "tf32": HalfTolerance(), "fp16": HalfTolerance(), "int8": MaskTolerance()
}


@dataclass(frozen=True)
class Case:
    """One input to compare on."""

    kind: str
    height: int
    width: int
    support_size: int
    members: int


@dataclass(frozen=True)
class CaseResult:
    """One model on one case: largest absolute logit error, flipped pixels of how many, and Dice of the two masks."""

    model: str
    case: Case
    logit_error: float
    flipped: int
    pixels: int
    dice: float
    half: CaseResult | None = None  # the reference in half precision on the same case, where it was run

    def within(self, tolerance: AnyTolerance) -> bool:
        return tolerance.admits(self)


@dataclass(frozen=True)
class ParityReport:
    """All results and the tolerance they are held against."""

    tolerance: AnyTolerance
    results: tuple[CaseResult, ...]

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        return tuple(r for r in self.results if not r.within(self.tolerance))

    def summary(self) -> dict:
        """Plain values for the manifest: the worst of each figure for each model, and the cases that were run."""
        models = {}
        for name in dict.fromkeys(r.model for r in self.results):
            mine = [r for r in self.results if r.model == name]
            models[name] = {
                "largest_logit_error": max(r.logit_error for r in mine),
                "flipped_pixels": sum(r.flipped for r in mine),
                "pixels": sum(r.pixels for r in mine),
                "smallest_dice": min(r.dice for r in mine),
                "cases": len(mine),
            }
            if all(r.half is not None for r in mine):
                models[name]["largest_logit_error_over_plain_half"] = max(
                    r.logit_error / max(r.half.logit_error, 1e-12) for r in mine)
        keys = ("kind", "support_size", "members")
        cases = {key: sorted({getattr(r.case, key) for r in self.results}) for key in keys}
        cases["image_sizes"] = sorted({(r.case.height, r.case.width) for r in self.results})
        tolerance = {"kind": type(self.tolerance).__name__, **asdict(self.tolerance)}
        return {"reference": "PyTorch, float32", "tolerance": tolerance, "models": models, "cases": cases}

    def table(self) -> str:
        lines = [f"{'model':10}{'cases':>7}{'largest logit error':>22}{'flipped pixels':>18}{'smallest Dice':>16}"]
        for name, m in self.summary()["models"].items():
            lines.append(f"{name:10}{m['cases']:7}{m['largest_logit_error']:22.2e}{m['flipped_pixels']:9}/{m['pixels']:<8}"
                         f"{m['smallest_dice']:16.6f}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Cases:
    """What to compare on: each kind of input at each image size, support size and number of members."""

    image_sizes: tuple[tuple[int, int], ...]
    support_sizes: tuple[int, ...]
    members: tuple[int, ...]
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        if any(k > max(MEMBERS) for k in self.members):
            raise InputError(f"{max(self.members)} members; the gate's inputs have up to {max(MEMBERS)}")

    def grid(self) -> list[tuple[str, tuple[int, int], int]]:
        """Kind, image size and support size of each input, the cheapest first."""
        grid = ((kind, size, s) for kind in self.kinds for size in self.image_sizes for s in self.support_sizes)
        return sorted(grid, key=lambda inputs: np.prod(inputs[1]) * inputs[2])


def compare(
    models: Mapping[str, Model], tolerance: AnyTolerance, cases: Cases, reference: Reference,
    progress: Callable[[Sequence], Iterator] = iter, stop_early: bool = False,
) -> tuple[ParityReport, dict[Case, str]]:
    """Figures of each model on each case, and the cases that a model does not take (outside an engine's profile) with
    its reason. `over` judges the report; nothing is raised for what is over tolerance. stop_early: no input follows one
    on which a model is over tolerance."""
    half, results, refused = isinstance(tolerance, HalfTolerance), [], {}
    for kind, (height, width), entries in progress(cases.grid()):
        inputs, before = (kind, height, width, entries), len(results)
        support, entry_weights, query = make_inputs(*inputs, max(MEMBERS))
        for members in cases.members:
            case = Case(*inputs, members)
            for name, model in models.items():
                try:
                    with kept_memory():
                        actual = model(support[:members], entry_weights[:members], query)
                except InputError as error:
                    refused[case] = str(error)
                    continue
                expected, beside = reference.logits(*inputs)[:, :members], None
                if half:
                    beside = _compare("plain half", case, reference.logits(*inputs, half=True)[:, :members], expected)
                results.append(replace(_compare(name, case, actual, expected), half=beside))
        if stop_early and not all(r.within(tolerance) for r in results[before:]):
            break
    return ParityReport(tolerance, tuple(results)), refused


def over(report: ParityReport) -> list[str]:
    """What is over tolerance, a line each, the worst first; empty where all is within."""
    worst = sorted(report.failures, key=lambda r: (not np.isfinite(r.logit_error), r.logit_error), reverse=True)
    lines = [
        f"{r.model} at {r.case.kind}, S={r.case.support_size}, K={r.case.members}, {r.case.height}x{r.case.width}: "
        f"logit error {r.logit_error:.3g}, {r.flipped} of {r.pixels} pixels flipped, Dice {r.dice:.6f}" +
        ("" if r.half is None else
         f" (plain half precision: {r.half.logit_error:.3g}, {r.half.flipped}, {r.half.dice:.6f})") for r in worst
    ]
    if isinstance(report.tolerance, MaskTolerance):
        for name, f in report.summary()["models"].items():
            if not f["flipped_pixels"] <= report.tolerance.flipped_in_all * f["pixels"]:
                lines.append(
                    f"{name}: {f['flipped_pixels']} of {f['pixels']} pixels flipped in all, accepted is a share of "
                    f"{report.tolerance.flipped_in_all:g}")
    return lines


def check_parity(
    spec: NetworkSpec,
    weights: Mapping[str, np.ndarray],
    models: Mapping[str, Model],
    tolerance: AnyTolerance = Tolerance(),
    progress: Callable[[Sequence], Iterator] = iter,
    reference: Reference | None = None,
) -> ParityReport:
    """Compare models with the reference network; raises ParityError with the figures where one is over tolerance.

    The cheapest inputs come first, and none follows one that is over tolerance: more would not change the outcome.

    reference: one that another call has used already, and that remembers its results.
    """
    cases = Cases(IMAGE_SIZES, SUPPORT_SIZES, MEMBERS)
    reference = Reference(spec, weights) if reference is None else reference
    report, refused = compare(models, tolerance, cases, reference, progress, stop_early=True)
    if refused:
        raise ParityError(f"a model does not take an input of the gate: {next(iter(refused.values()))}")
    if found := over(report):
        planned = len(cases.grid()) * len(cases.members) * len(models)
        left = f", the other {planned - len(report.results)} were not made" if planned > len(report.results) else ""
        limits = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(tolerance).items())
        singly = f"{len(report.failures)} of {len(report.results)} comparisons with the reference are"
        raise ParityError(
            f"{singly if report.failures else 'all comparisons together are'} over tolerance ({limits}){left}; worst: "
            f"{found[0]}\n{report.table()}")
    return report


class Reference:
    """The reference network on the inputs of `make_inputs`, one member at a time (its memory grows with S).

    It remembers logits, not maps, so that models of several precisions are compared with one run of it. device: as
    PyTorch names it.
    """

    def __init__(self, spec: NetworkSpec, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        self.spec, self.weights, self.device = spec, weights, device
        self.known: dict[tuple, np.ndarray] = {}

    def logits(self, kind: str, height: int, width: int, entries: int, half: bool = False) -> np.ndarray:
        """(B,K,1,H,W) float32; half: of the reference run plainly in half precision."""
        key = (kind, height, width, entries, half)
        if key not in self.known:
            self.known[key] = self._run(*make_inputs(*key[:4], max(MEMBERS)), half)
        return self.known[key]

    def _run(self, support: np.ndarray, entry_weights: np.ndarray, query: np.ndarray, half: bool) -> np.ndarray:
        import torch

        from universeg_rt.training.network.reference import UniverSeg

        network = UniverSeg(self.spec).eval()
        network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in self.weights.items()})
        dtype = torch.float16 if half else torch.float32
        network.to(self.device, dtype)
        if half:
            _convolve_as_gpus_do(network)
        out = []
        with torch.inference_mode(), kept_memory():
            for entries, row in zip(support, entry_weights):
                x, q, w = (torch.from_numpy(a).to(self.device, dtype) for a in (entries[None], query, row[None]))
                out.append(network(q, x[:, :, :1], x[:, :, 1:], w).float().cpu().numpy())
        return np.stack(out, axis=1)


def _convolve_as_gpus_do(network) -> None:
    """Let a half-precision network's convolutions sum in float32 and round once; on a CPU that is also faster."""
    import torch

    def wide(conv):
        weight, bias = conv.weight.float(), conv.bias.float()
        return lambda x: torch.nn.functional.conv2d(x.float(), weight, bias, padding=conv.padding).half()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.forward = wide(module)


def _compare(model: str, case: Case, actual: np.ndarray, expected: np.ndarray) -> CaseResult:
    if actual.shape != expected.shape:
        raise ParityError(f"{model} at {case} gives logits of shape {actual.shape}, the reference {expected.shape}")
    ours, theirs = actual > 0, expected > 0
    error = float(np.abs(actual - expected).max())
    return CaseResult(model, case, error, int((ours != theirs).sum()), int(expected.size), dice(ours, theirs))
