"""What a support holds: areas, intensities, near-duplicates, and entries that are suspicious, each by a stated rule.

How the others see an entry's label is the probability map that the network gives for the entry's image with up to
SUPPORT_SIZE others as its support. The label is set against it by Pearson's correlation over pixels, which asks nothing
of the map's scale. Thresholds were chosen on faults planted into the data sets of the group tune (benchmarks/NOTES.md):
they keep false alarms rare, so on tasks that the network hardly knows they stay silent. Where most entries have the
same fault, none of them stands out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..imaging.embedding import grey_statistics
from ..imaging.metrics import dice, unit_maps
from ..imaging.normalisation import MINMAX, Normalisation
from ..left_out import others, predicted
from ..named_types import Array, Bools, Doubles, Floats
from ..segmenter import Segmenter
from ..support import SupportSet

SUPPORT_SIZE = 12
FEWEST = 4  # entries: with fewer, an entry is not judged by the others
GAIN, LEAST = 0.3, 0.4  # correlation that a changed label gains, and has
INVERTED = 0.1  # correlation of an inverted label at most
REACH = 6  # pixels of the network's grid by which a label is moved at least
UNEXPECTED, USUAL = 0.1, 0.5  # Dice by the others below the first is odd where the median reaches the second
DUPLICATE = 0.995  # correlation of two images
DISAGREE = 0.8  # Dice of two labels of one image below this is odd
NEIGHBOURS, SPREADS, TIMES = 3, 4.0, 1.3  # another modality: how far an image is from so many others

TURNS: dict[str, Callable[[Array], Array]] = {
    "transposed": lambda label: label.T, "mirrored": lambda label: label[:, ::-1],
    "upside down": lambda label: label[::-1], "turned by 180 degrees": lambda label: label[::-1, ::-1],
}
MOVED = "misaligned"
Report = Callable[[int], None]


@dataclass(frozen=True)
class Suspicion:
    """kind: `empty`, `inverted`, `transposed` and the other TURNS, `misaligned`, `unexpected`, `other modality`,
    `labels disagree`.
    why: in a sentence, with the figures."""

    kind: str
    why: str


@dataclass(frozen=True)
class Entry:
    """area: share of the image that is marked. low, high: of the intensities. size: (H,W). dice: with the mask that
    the others give; None where it was not asked for."""

    name: str
    size: tuple[int, int]
    area: float
    low: float
    high: float
    dice: float | None
    suspicions: tuple[Suspicion, ...]


@dataclass(frozen=True)
class Inspection:
    """entries: in their order. duplicates: groups of names whose images are nearly the same. absent: how many entries
    have a label that marks nothing, where that is meant."""

    entries: tuple[Entry, ...]
    duplicates: tuple[tuple[str, ...], ...]
    absent: int = 0


def inspect(
    support: SupportSet, segmenter: Segmenter | None, *, aspect: str = "stretch", normalise: Normalisation = MINMAX,
    seed: int = 0, done: Report = lambda count: None, absent_meant: bool = False,
) -> Inspection:
    """Look at all entries. segmenter: None looks without the network, for what needs none: empty labels, duplicates,
    another modality. seed: of the others that judge an entry. done: is called as entries are judged.
    absent_meant: whether labels that mark nothing are wanted, as of slices of a volume beside the structure; else they
    are suspicious.

    Raises InputError as `SupportSet.on_grid`, RunnerError as a runner does.
    """
    grid = (128, 128) if segmenter is None else segmenter.grid
    entries = support.on_grid(grid, aspect, normalise)
    absent = [absent_meant and not label.any() for label in support.labels]
    found: list[list[Suspicion]] = [[] if meant else _empty(label, entry[1])
                                    for label, entry, meant in zip(support.labels, entries, absent)]
    for i, why in other_modality(entries[:, 0]).items():
        if support.labels[i].any():  # without the structure an image may well be of another part of the body
            found[i].append(Suspicion("other modality", why))
    scores: list[float | None] = [None] * len(support)
    if segmenter is not None and len(support) >= FEWEST:
        rng = np.random.default_rng(seed)
        for i in range(len(support)):
            judges = others(entries[:, 0], i, SUPPORT_SIZE, rng)
            if len(judges) >= FEWEST - 1:
                probability = predicted(segmenter.runner, entries, i, judges)
                scores[i] = dice(probability >= 0.5, entries[i, 1] >= 0.5)
                areas = np.delete(entries[:, 1].mean(axis=(1, 2)), i)
                found[i] += against(entries[i, 1] >= 0.5, probability, areas)
            done(1)
        usual = float(np.median([score for score in scores if score is not None] or [0.0]))
        for i, score in enumerate(scores):
            if score is not None and score < UNEXPECTED and usual >= USUAL and not found[i] and not absent[i]:
                why = f"the others predict another mask (Dice {score:.2f}, their median {usual:.2f})"
                found[i].append(Suspicion("unexpected", why))
    groups = _duplicates(entries[:, 0])
    for group in ([i for i in group if not absent[i]] for group in groups):
        for i in group:
            worst = min(dice(entries[i, 1] >= 0.5, entries[j, 1] >= 0.5) for j in group)
            if worst < DISAGREE:
                why = f"nearly the same image has another label (Dice {worst:.2f})"
                found[i].append(Suspicion("labels disagree", why))
    rows = tuple(
        Entry(name, (image.shape[0], image.shape[1]), float(label.mean()), float(image.min()), float(image.max()),
              score, tuple(suspicions))
        for name, image, label, score, suspicions in zip(support.names, support.images, support.labels, scores, found))
    return Inspection(rows, tuple(tuple(support.names[i] for i in group) for group in groups), sum(absent))


def _empty(label: Bools, on_grid: Floats) -> list[Suspicion]:
    if not label.any():
        return [Suspicion("empty", "the label marks nothing; right only where the structure is absent")]
    if not on_grid.any():
        return [Suspicion("empty", f"what the label marks ({int(label.sum())} pixels) is lost on the network's grid")]
    return []


def against(label: Bools, probability: Floats, areas: Doubles | Floats) -> list[Suspicion]:
    """What the others say of a label (h,w): probability (h,w), and the areas of their labels."""
    if not label.any() or label.all():
        return []
    seen, given = unit_maps(probability), unit_maps(label)
    fit = float((seen * given).sum())
    if fit <= INVERTED and _looks_inverted(float(label.mean()), areas):
        why = (f"its complement has the area of the other labels (median {np.median(areas):.0%}, its own "
               f"{label.mean():.0%}), and the label fits what they predict by {fit:.2f}")
        return [Suspicion("inverted", why)]
    fits = {name: float((seen * unit_maps(turn(label))).sum()) for name, turn in TURNS.items()
            if turn(label).shape == label.shape}
    (down, right), moved = _best_move(seen, given)
    if np.hypot(down, right) >= REACH:
        fits[MOVED] = moved
    best = max(fits, key=lambda name: fits[name])
    if fits[best] - fit < GAIN or fits[best] < LEAST:
        return []
    how = f"moved {down:+d} down and {right:+d} right (of {label.shape[0]})" if best == MOVED else best
    return [Suspicion(best, f"{how} it fits what the other entries predict by {fits[best]:.2f}, as it is by {fit:.2f}")]


def _looks_inverted(area: float, areas: Doubles | Floats) -> bool:
    """Whether the complement's area is nearer to the others' median than the area itself, by odds of e."""
    def odds(share: float) -> float:
        return float(np.log(max(share, 1e-4) / max(1 - share, 1e-4)))

    middle = float(np.median([odds(float(each)) for each in areas]))
    return abs(odds(1 - area) - middle) < abs(odds(area) - middle) - 1


def _best_move(seen: Doubles, given: Doubles) -> tuple[tuple[int, int], float]:
    """The shift in rows and columns by which one map fits the other best, around the edges, and how well."""
    spectrum = np.fft.rfft2(seen) * np.conj(np.fft.rfft2(given))
    fits = np.fft.irfft2(spectrum, s=seen.shape)
    place = np.unravel_index(int(fits.argmax()), fits.shape)
    down, right = ((int(i) + size // 2) % size - size // 2 for i, size in zip(place, fits.shape))
    return (down, right), float(fits.max())


def other_modality(images: Floats) -> dict[int, str]:
    """Entries whose grey values are far from their NEIGHBOURS nearest others': more than SPREADS robust deviations
    above the median of such distances, and TIMES of it."""
    if len(images) < FEWEST + NEIGHBOURS:
        return {}
    apart = np.zeros((len(images), len(images)))
    for part in grey_statistics(images):
        apart += np.sqrt(np.maximum(0, 2 - 2 * part @ part.T))
    np.fill_diagonal(apart, np.inf)
    far = np.sort(apart, axis=1)[:, :NEIGHBOURS].mean(axis=1)
    middle = float(np.median(far))
    deviation = 1.4826 * float(np.median(np.abs(far - middle)))
    strange = np.flatnonzero((far > middle + SPREADS * deviation) & (far > TIMES * middle))
    return {int(i): f"its grey values are {far[i] / max(middle, 1e-9):.1f} times as far from the nearest entries' as "
            "is usual here: another modality, stain or scanner, or another part of the body" for i in strange}


def _duplicates(images: Floats) -> list[list[int]]:
    """Groups of images whose correlation reaches DUPLICATE, through others too."""
    flat = unit_maps(images).reshape(len(images), -1)
    group = np.arange(len(images))
    for i, j in np.argwhere(np.triu(flat @ flat.T >= DUPLICATE, 1)):
        group[group == group[j]] = group[i]
    found = [np.flatnonzero(group == g).tolist() for g in np.unique(group)]
    return [members for members in found if len(members) > 1]
