"""The parity gate: every exported model against the reference network, on random and on image-like inputs.

What a model is held against depends on its precision: float32 on fixed figures (`Tolerance`), half precision on the error of
the reference run plainly in half precision (`HalfTolerance`), int8 on the masks (`MaskTolerance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from universeg_rt.errors import ParityError
from universeg_rt.spec import NetworkSpec

from .memory import kept_memory

SUPPORT_SIZES = (1, 2, 7, 16, 64)
MEMBERS = (1, 3)
IMAGE_SIZES = ((128, 128), (64, 96))
KINDS = ("random", "image-like")

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

    logit_error: what is accepted where the plain run is better still. flipped and dice: of the masks, or `times` what the
    plain run gives where that is worse.
    """

    logit_error: float = 1e-3
    flipped: float = 5e-3
    dice: float = 0.99
    times: float = 2.0

    def admits(self, r: CaseResult) -> bool:
        if r.half is None:
            raise ValueError("half precision is judged beside the reference in half precision, which was not run")
        plain = r.half.logit_error if np.isfinite(r.half.logit_error) else 0.0  # overflow there allows nothing here
        return bool(r.logit_error <= max(self.logit_error, self.times * plain)
                    and r.flipped <= max(self.flipped * r.pixels, self.times * r.half.flipped)
                    and 1 - r.dice <= max(1 - self.dice, self.times * (1 - r.half.dice)))


@dataclass(frozen=True)
class MaskTolerance:
    """Int8: the largest share of flipped pixels of any case and of all together; logits need only be finite."""

    flipped: float = 0.02
    flipped_in_all: float = 0.005

    def admits(self, r: CaseResult) -> bool:
        return bool(np.isfinite(r.logit_error) and r.flipped <= self.flipped * r.pixels)


AnyTolerance = Tolerance | MaskTolerance


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
        cases = {key: sorted({getattr(r.case, key) for r in self.results}) for key in ("kind", "support_size", "members")}
        cases["image_sizes"] = sorted({(r.case.height, r.case.width) for r in self.results})
        tolerance = {"kind": type(self.tolerance).__name__, **asdict(self.tolerance)}
        return {"reference": "PyTorch, float32", "tolerance": tolerance, "models": models, "cases": cases}

    def table(self) -> str:
        lines = [f"{'model':10}{'cases':>7}{'largest logit error':>22}{'flipped pixels':>18}{'smallest Dice':>16}"]
        for name, m in self.summary()["models"].items():
            lines.append(f"{name:10}{m['cases']:7}{m['largest_logit_error']:22.2e}{m['flipped_pixels']:9}/{m['pixels']:<8}"
                         f"{m['smallest_dice']:16.6f}")
        return "\n".join(lines)


def check_parity(
    spec: NetworkSpec, weights: Mapping[str, np.ndarray], models: Mapping[str, Model], tolerance: AnyTolerance = Tolerance(),
    progress: Callable[[Sequence], Iterator] = iter, reference: Reference | None = None,
) -> ParityReport:
    """Compare models with the reference network; raises ParityError with the figures where one is over tolerance.

    The cheapest inputs come first, and none follows one that is over tolerance: minutes more would not change the outcome.

    reference: one that another call has used already, and that remembers its results.
    """
    reference = Reference(spec, weights) if reference is None else reference
    half = isinstance(tolerance, HalfTolerance)
    results = []
    grid = sorted(((kind, size, entries) for kind in KINDS for size in IMAGE_SIZES for entries in SUPPORT_SIZES),
                  key=lambda inputs: np.prod(inputs[1]) * inputs[2])
    planned = len(grid) * len(MEMBERS) * len(models)
    for kind, (height, width), entries in progress(grid):
        inputs = (kind, height, width, entries)
        support, entry_weights, query = make_inputs(*inputs, max(MEMBERS))
        expected = reference.logits(*inputs)
        plain_half = reference.logits(*inputs, half=True) if half else None
        for members in MEMBERS:
            case = Case(*inputs, members)
            beside = _compare("plain half", case, plain_half[:, :members], expected[:, :members]) if half else None
            for name, model in models.items():
                with kept_memory():
                    actual = model(support[:members], entry_weights[:members], query)
                results.append(replace(_compare(name, case, actual, expected[:, :members]), half=beside))
        if not all(r.within(tolerance) for r in results[-len(MEMBERS) * len(models):]):
            break
    report = ParityReport(tolerance, tuple(results))
    failures = report.failures
    if failures:
        worst = max(failures, key=lambda r: (not np.isfinite(r.logit_error), r.logit_error))
        beside = "" if worst.half is None else f" (plain half precision: {worst.half.logit_error:.3g}, {worst.half.flipped})"
        left = f", the other {planned - len(results)} were not made" if planned > len(results) else ""
        limits = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in asdict(tolerance).items())
        raise ParityError(
            f"{len(failures)} of {len(results)} comparisons with the reference are over tolerance ({limits}){left}; worst: "
            f"{worst.model} at {worst.case}: logit error {worst.logit_error:.3g}, {worst.flipped} of {worst.pixels} pixels "
            f"flipped{beside}, Dice {worst.dice:.6f}\n{report.table()}")
    if isinstance(tolerance, MaskTolerance):
        for name, figures in report.summary()["models"].items():
            if not figures["flipped_pixels"] <= tolerance.flipped_in_all * figures["pixels"]:
                raise ParityError(
                    f"{name} is over tolerance: {figures['flipped_pixels']} of {figures['pixels']} pixels flipped in all, "
                    f"accepted is a share of {tolerance.flipped_in_all:g}\n{report.table()}")
    return report


def make_inputs(kind: str, height: int, width: int, entries: int, members: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support (K,S,2,H,W), weights (K,S) and one query (1,1,H,W), the same for the same arguments.

    `random` is noise with unequal weights, some of them zero; `image-like` has smooth images of a bright, blurred ellipse
    over a shading, and the ellipse as label.
    """
    rng = np.random.default_rng([KINDS.index(kind), height, width, entries])
    count = members * entries + 1
    weights = np.ones((members, entries))
    if kind == "random":
        images = rng.random((count, height, width))
        labels = (rng.random((count, height, width)) > 0.5).astype(float)
        if entries > 1:
            weights = rng.random((members, entries)) + 0.1
            weights[1:, entries // 2] = 0.0
    else:
        images, labels = _ellipses(rng, count, height, width)
    weights /= weights.sum(axis=1, keepdims=True)
    support = np.stack([images[1:], labels[1:]], axis=1).reshape(members, entries, 2, height, width)
    return support.astype(np.float32), weights.astype(np.float32), images[None, :1].astype(np.float32)


def _ellipses(rng: np.random.Generator, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    images, labels = [], []
    for _ in range(count):
        cy, cx, ry, rx = *rng.uniform(-0.4, 0.4, 2), *rng.uniform(0.15, 0.5, 2)
        distance = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2
        shading = 0.3 * np.sin(rng.uniform(1, 4) * y + rng.uniform(0, 6)) * np.cos(rng.uniform(1, 4) * x)
        image = 1 / (1 + np.exp(np.minimum(6 * (distance - 1), 50))) + shading + rng.normal(0, 0.05, y.shape)
        images.append((image - image.min()) / (image.max() - image.min()))
        labels.append(distance < 1)
    return np.stack(images), np.stack(labels).astype(float)


class Reference:
    """The reference network on the inputs of `make_inputs`, one member at a time (its memory grows with S).

    It remembers logits, not maps, so that models of several precisions are compared with one run of it. device: as PyTorch
    names it.
    """

    def __init__(self, spec: NetworkSpec, weights: Mapping[str, np.ndarray], device: str = "cpu") -> None:
        self.spec, self.weights, self.device = spec, weights, device
        self._logits: dict[tuple, np.ndarray] = {}

    def logits(self, kind: str, height: int, width: int, entries: int, half: bool = False) -> np.ndarray:
        """(B,K,1,H,W) float32; half: of the reference run plainly in half precision."""
        key = (kind, height, width, entries, half)
        if key not in self._logits:
            self._logits[key] = self._run(*make_inputs(*key[:4], max(MEMBERS)), half)
        return self._logits[key]

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
    """Let a half-precision network's convolutions sum in float32 and round once: on a CPU also a hundred times faster."""
    import torch

    def wide(conv):
        weight, bias = conv.weight.float(), conv.bias.float()
        return lambda x: torch.nn.functional.conv2d(x.float(), weight, bias, padding=conv.padding).half()

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.forward = wide(module)


def mask_dice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Dice of two boolean masks; 1 where both are empty."""
    size = int(ours.sum() + theirs.sum())
    return 2.0 * float((ours & theirs).sum()) / size if size else 1.0


def _compare(model: str, case: Case, actual: np.ndarray, expected: np.ndarray) -> CaseResult:
    if actual.shape != expected.shape:
        raise ParityError(f"{model} at {case} gives logits of shape {actual.shape}, the reference {expected.shape}")
    ours, theirs = actual > 0, expected > 0
    dice = mask_dice(ours, theirs)
    error = float(np.abs(actual - expected).max())
    return CaseResult(model, case, error, int((ours != theirs).sum()), int(expected.size), dice)
