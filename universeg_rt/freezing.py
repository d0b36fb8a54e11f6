"""Freezing a task: constants from proxies, the price on the support's own entries, and the frozen file.

What a proxy is: proxies.py. Entries of the support are left out of it in pairs (`left_out`), so that a pair's runs give
the exact answers for both, and the constants by which the static answer for one is judged come from the other's run, or
from the given images': its own label is in neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import left_out
from .answers.thresholds import CHOOSE, CHOOSING, THRESHOLD, as_taken, check_threshold, dice_at, taken
from .errors import BundleError, InputError, RunnerError
from .frozen.base import FrozenRunner
from .frozen.record import AUTO, EXACT, HALF, KINDS, SINGLE, STATIC, Price
from .frozen.runners import open_frozen_runner
from .frozen_files import Freezable, Maps, exact_task, static_task, stored, with_constants
from .frozen_task import FrozenTask
from .imaging.metrics import correlations, dice
from .left_out import FEWEST
from .named_types import Array, Bools, Doubles, Floats
from .predictor import sigmoid
from .proxies import SUPPORT, constants_of, of_images, of_support, on_grid
from .support import Drawn

NEAR = 0.98  # correlation of images that count as near copies, such as neighbouring slices
LEAST_KEPT = 0.5  # a set must keep more of its entries, or what is measured are the answers of another support


def freeze(
    task: Freezable, proxies: str | Sequence[Array] | Array, kind: str, max_loss: float, threshold: float | str,
    seed: int, half: bool, precision: str,
) -> FrozenTask:
    """As `Task.freeze`."""
    if kind not in (*KINDS, AUTO):
        raise InputError(f"kind is {kind!r}; accepted: {AUTO}, {', '.join(KINDS)}")
    if isinstance(max_loss, bool) or not isinstance(max_loss, (int, float)) or not 0 <= max_loss <= 1:
        raise InputError(f"max_loss is {max_loss!r}; give a Dice from 0 to 1, such as 0.01 for a point")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}; give an integer from 0")
    if threshold is None or isinstance(threshold, str) and threshold != CHOOSE:
        raise InputError(f"threshold is {threshold!r}; give a number between 0 and 1, or {CHOOSE!r}")
    given = None if isinstance(threshold, str) else check_threshold(threshold)
    if given is None and kind == EXACT:
        raise InputError(f"threshold is {CHOOSE!r}, and kind='exact' leaves no entries out to choose by; take "
                         "task.refine('threshold'), or another kind")
    if not isinstance(precision, str) or precision not in (SINGLE, HALF):
        raise InputError(
            f"precision is {precision!r}; accepted: {SINGLE}, {HALF}; for int8 take universeg-export --freeze")
    if precision != SINGLE and kind == EXACT:
        raise InputError(f"precision is {precision!r}, which is for static files; an exact one has that of its "
                         "Segmenter: open it so, or take kind='static'")
    if precision == HALF and not half:
        raise InputError("a static file in fp16 holds its constant maps in half precision; leave half=False out")
    fixed = THRESHOLD if given is None else given
    _ = task.prepared  # RunnerError where it is closed, InputError where each query has sets of its own
    images = None if isinstance(proxies, str) and proxies == SUPPORT else on_grid(task, proxies)
    refused = refusal(task)
    if kind == STATIC and refused:
        raise InputError(f"{refused}; take kind='exact'")
    if kind == EXACT or refused:
        return exact_task(task, "asked for" if kind == EXACT else refused, Price(note="not measured"), fixed)
    if precision != SINGLE:
        task.segmenter.bundle.load(precision, STATIC)  # BundleError where there is none, before anything is measured
    drawn = Drawn.of(task.support, task.draw.used, task.grid, task.aspect, task.normalise)
    differing = left_out.differing(drawn.on_grid[:, 0])
    note = "" if differing >= FEWEST else (
        f"the price of a static task cannot be measured on {differing} different support "
        f"image{'s' * (differing != 1)}: leaving some out needs {FEWEST}")
    if note and (kind == AUTO or images is None):
        if kind == AUTO:
            return exact_task(task, note, Price(note=note), fixed)
        raise InputError(f"{note}; give images as proxies, or take kind='exact'")
    try:
        without = [] if note else _leave_out(task, drawn, seed, images)
        share = _kept(task, without)
        price = _price(task, without, half, given if share > LEAST_KEPT else fixed, note)
    except (RunnerError, BundleError) as error:  # a runner without constant maps, a bundle without the template
        if kind == AUTO:
            return exact_task(task, str(error), Price(note="not measured"), fixed)
        raise
    reason = "asked for"
    if kind == AUTO:
        if price.loss is None:
            return exact_task(task, price.note, price, fixed)
        if share <= LEAST_KEPT:
            said = f"without the entries left out a set keeps {share:.0%} of its own, so the price says little"
            return exact_task(task, said, price, fixed)
        lost = f"{price.loss:.4f} {price.loss_is_of}, {max_loss:g} may be lost"
        if price.loss > max_loss:
            return exact_task(task, f"static would lose {lost}", price, price.exact_threshold)
        reason = f"static gains {-price.loss:.4f} Dice" if price.loss < 0 else f"static loses {lost}"
    try:
        if images is None:
            constants, said = of_support(task, [each.constants for each in without], drawn.on_grid, seed)
        else:
            constants, said = of_images(task, images), f"{len(images)} images given"
    except RunnerError as error:  # no memory for the whole support, which is larger than what it was without a pair
        if kind == AUTO:
            return exact_task(task, str(error), price, price.exact_threshold)
        raise
    return static_task(task, constants, reason, price, said, half, precision)


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """An entry left out: which go with it, its image and label (h,w), the exact network's probability, the constants
    that its run gave. judged_by: those of the static network that answers for it, from the mate's run or the given
    images'; None without either. Whether an entry that was not left out is nearly the same image."""

    gone: tuple[int, ...]
    image: Array
    label: Bools
    exact: Floats
    constants: Maps
    judged_by: Maps | None
    has_near_copy: bool


def _leave_out(task: Freezable, drawn: Drawn, seed: int, images: Floats | None) -> list[_LeftOut]:
    """Run the pairs of `left_out`, each left out of every set. images (N,1,h,w): proxies, each with one pair."""
    entries, weights, shares, runner = drawn.on_grid, task.draw.weights, task.draw.shares, task.segmenter.runner
    pairs = list(left_out.groups(entries[:, 0], seed))
    out: list[_LeftOut] = []
    for place, (members, gone) in enumerate(pairs):
        kept, part = _without(gone, weights, shares)
        prepared = runner.prepare(entries, kept)
        runs = [runner.mean_constants(prepared, entries[m, :1], part) for m in members]
        given: list[Maps] = []
        if images is not None:
            some = images[place :: len(pairs)]
            given = [runner.mean_constants(prepared, image, part)[1] for image in (some if len(some) else images[:1])]
        for i, (member, (logits, constants)) in enumerate(zip(members, runs)):
            image, label = entries[member]
            by = given if images is not None else [each for j, (_, each) in enumerate(runs) if j != i]
            exact = np.asarray(np.average(sigmoid(logits[:, 0]), axis=0, weights=part), np.float32)
            others = [other for other in range(len(entries)) if other not in gone]
            near = bool((correlations(image, entries[others, 0]) > NEAR).any())
            judged_by = constants_of(by, task) if by else None
            out.append(_LeftOut(tuple(gone), image, label >= 0.5, exact, constants, judged_by, near))
    return out


def _kept(task: Freezable, without: Sequence[_LeftOut]) -> float:
    """Of what was left out together, the least share of their weight that the sets keep, mean over the sets; all of it
    where nothing was."""
    return min((float(np.delete(task.draw.weights, each.gone, 1).sum(axis=1).mean()) for each in without), default=1.0)


def _without(gone: Sequence[int], weights: Floats, shares: Doubles) -> tuple[Floats, Doubles]:
    """The sets (K,N) and their shares without these entries; where nothing is left of any, sets of one entry each."""
    kept = weights.copy()
    kept[:, gone] = 0
    whole = kept.sum(axis=1) > 0
    if not whole.any():
        kept = np.delete(np.eye(weights.shape[1], dtype=np.float32), gone, 0)
        return kept, np.full(len(kept), 1 / len(kept))
    return kept[whole] / kept[whole].sum(axis=1, keepdims=True), shares[whole] / shares[whole].sum()


def _price(
    task: Freezable, without: Sequence[_LeftOut], half: bool, threshold: float | None, note: str
) -> Price:
    """Both kinds on the entries left out, marked from the given threshold on, or for None from those that the entries
    with the target choose where it pays. note: why no entry was left out, where none was.

    What answers for an entry has not seen its label. The threshold by which it is marked is chosen on the others, of
    whose supports it is a part.
    """
    judged = [each for each in without if each.judged_by is not None]
    fixed = THRESHOLD if threshold is None else threshold
    shown = [i for i, each in enumerate(judged) if each.label.any()]
    if not shown:
        note = note or "no entry that could be judged shows the target, so no price could be measured"
        return Price(note=note, exact_threshold=fixed, static_threshold=fixed)
    labels = [each.label for each in judged]
    exact = _marked([each.exact for each in judged], labels, shown, threshold)
    static = _marked(_static_answers(task, judged, half), labels, shown, threshold)
    agreement = float(np.mean([dice(exact.masks[i], static.masks[i]) for i in shown]))
    near = sum(each.has_near_copy for each in without)
    note = (f"{near} of {len(without)} entries left out look nearly like others (correlation above {NEAR:g}), which "
            "flatters exact") if near else ""
    return Price(len(shown), exact.dice, static.dice, agreement, note, exact.threshold, static.threshold, exact.at_half,
                 static.at_half, len(judged) - len(shown), exact.false, static.false)


@dataclass(frozen=True, eq=False)
class _Marked:
    """One kind's masks (h,w) of the entries from a threshold on: mean Dice of those that show the target, that from 0.5
    on, and in how many of the others something is marked."""

    threshold: float
    masks: list[Bools]
    dice: float
    at_half: float
    false: int


def _marked(
    probabilities: Sequence[Floats], labels: Sequence[Bools], shown: Sequence[int], threshold: float | None
) -> _Marked:
    """Marked from the given threshold on, or for None from the one that the entries with the target choose."""
    fixed = THRESHOLD if threshold is None else threshold
    at_half, scores = (np.array([dice(probabilities[i] >= t, labels[i]) for i in shown]) for t in (THRESHOLD, fixed))
    if threshold is None and len(shown) >= CHOOSING:
        at_each = np.array([dice_at(probabilities[i], labels[i]) for i in shown])
        fixed = taken(at_each)
        scores = at_half if fixed == THRESHOLD else as_taken(at_each)
    masks = [p >= fixed for p in probabilities]
    false = sum(bool(mask.any()) for i, mask in enumerate(masks) if i not in shown)
    return _Marked(fixed, masks, float(scores.mean()), float(at_half.mean()), false)


def _static_answers(task: Freezable, judged: Sequence[_LeftOut], half: bool) -> list[Floats]:
    """Probability (h,w) of each entry by the static network of the constants that judge it."""
    out: list[Floats] = []
    runner: FrozenRunner | None = None
    for each in judged:
        assert each.judged_by is not None
        other = runner.with_constants(stored(each.judged_by, half)) if runner else None
        runner = other or open_frozen_runner(
            with_constants(task, each.judged_by, half), STATIC, task.segmenter.bundle.manifest.spec, "auto",
            task.segmenter.options)
        out.append(np.asarray(sigmoid(runner.run(each.image[None, None])[0, 0]), np.float32))
    return out


def refusal(task: Freezable) -> str:
    """Why the task's network has no static form; empty where it has one."""
    if task.segmenter.bundle.manifest.spec.cross_activation == "none":
        return ""
    return (
        "this network has an activation in the cross convolution, so it reads the support entry by entry and no "
        "constant map stands for it")
