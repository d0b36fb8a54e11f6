"""The parity gate: every exported model against the reference network, on random and on image-like inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from universeg_rt.errors import ParityError
from universeg_rt.spec import NetworkSpec

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

    def within(self, tolerance: Tolerance) -> bool:
        # Written so that a NaN fails.
        return bool(self.logit_error <= tolerance.logit_error and self.flipped <= tolerance.flipped * self.pixels
                    and self.dice >= tolerance.dice)


@dataclass(frozen=True)
class ParityReport:
    """All results and the tolerance they are held against."""

    tolerance: Tolerance
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
        cases = {key: sorted({getattr(r.case, key) for r in self.results}) for key in ("kind", "support_size", "members")}
        cases["image_sizes"] = sorted({(r.case.height, r.case.width) for r in self.results})
        return {"reference": "PyTorch, float32", "tolerance": asdict(self.tolerance), "models": models, "cases": cases}

    def table(self) -> str:
        lines = [f"{'model':10}{'cases':>7}{'largest logit error':>22}{'flipped pixels':>18}{'smallest Dice':>16}"]
        for name, m in self.summary()["models"].items():
            lines.append(f"{name:10}{m['cases']:7}{m['largest_logit_error']:22.2e}{m['flipped_pixels']:9}/{m['pixels']:<8}"
                         f"{m['smallest_dice']:16.6f}")
        return "\n".join(lines)


def check_parity(
    spec: NetworkSpec, weights: Mapping[str, np.ndarray], models: Mapping[str, Model], tolerance: Tolerance = Tolerance(),
    progress: Callable[[Sequence], Iterator] = iter,
) -> ParityReport:
    """Compare models with the reference network; raises ParityError with the figures where one is over tolerance."""
    reference = _reference(spec, weights)
    largest, results = max(MEMBERS), []
    grid = [(kind, size, entries) for kind in KINDS for size in IMAGE_SIZES for entries in SUPPORT_SIZES]
    for kind, (height, width), entries in progress(grid):
        support, entry_weights, query = make_inputs(kind, height, width, entries, largest)
        expected = reference(support, entry_weights, query)
        for members in MEMBERS:
            case = Case(kind, height, width, entries, members)
            for name, model in models.items():
                actual = model(support[:members], entry_weights[:members], query)
                results.append(_compare(name, case, actual, expected[:, :members]))
    report = ParityReport(tolerance, tuple(results))
    if report.failures:
        worst = max(report.failures, key=lambda r: (not np.isfinite(r.logit_error), r.logit_error))
        raise ParityError(
            f"{len(report.failures)} of {len(results)} comparisons with the reference are over tolerance "
            f"(logit error {tolerance.logit_error:g}, flipped {tolerance.flipped:g}, Dice {tolerance.dice:g}); worst: "
            f"{worst.model} at {worst.case}: logit error {worst.logit_error:.3g}, {worst.flipped} of {worst.pixels} pixels "
            f"flipped, Dice {worst.dice:.6f}\n{report.table()}")
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


def _reference(spec: NetworkSpec, weights: Mapping[str, np.ndarray]) -> Model:
    """The reference network, one member at a time (its memory grows with S)."""
    import torch

    from universeg_rt.training.reference import UniverSeg

    network = UniverSeg(spec).eval()
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})

    def run(support: np.ndarray, entry_weights: np.ndarray, query: np.ndarray) -> np.ndarray:
        out = []
        with torch.inference_mode():
            for entries, row in zip(support, entry_weights):
                x = torch.from_numpy(entries)[None]
                out.append(network(torch.from_numpy(query), x[:, :, :1], x[:, :, 1:], torch.from_numpy(row)[None]).numpy())
        return np.stack(out, axis=1)

    return run


def _compare(model: str, case: Case, actual: np.ndarray, expected: np.ndarray) -> CaseResult:
    if actual.shape != expected.shape:
        raise ParityError(f"{model} at {case} gives logits of shape {actual.shape}, the reference {expected.shape}")
    ours, theirs = actual > 0, expected > 0
    size = int(ours.sum() + theirs.sum())
    dice = 2.0 * float((ours & theirs).sum()) / size if size else 1.0
    error = float(np.abs(actual - expected).max())
    return CaseResult(model, case, error, int((ours != theirs).sum()), int(expected.size), dice)
