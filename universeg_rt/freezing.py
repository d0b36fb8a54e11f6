"""Freezing a task: constants from proxies, the price on the support's own entries, and the frozen file.

A proxy is an image of the task that runs through the exact network as a query; each block's support term then is what a
static network keeps (export/emit/static.py has the algebra). Entries of the support serve as proxies of one another.
They are left out of the support in pairs (`left_out`), so that a pair's runs give the exact answers for both, and the
constants by which the static answer for one is judged come from the other's run, or from the given images': its own
label is in neither.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from . import left_out
from .answers.thresholds import THRESHOLD, Gain, check_threshold, choose, dice_at, offset
from .bundle.bundle import Bundle
from .bundle.onnx_bind import bind
from .bundle.onnx_file import tensors
from .ensemble import Draw, Ensemble
from .errors import BundleError, InputError, RunnerError
from .frozen.base import FrozenRunner
from .frozen.record import AUTO, EXACT, HEAD_BIAS, KEY, KINDS, STATIC, Price, Record, constant_name
from .frozen.runners import open_frozen_runner
from .frozen.seal import sealed
from .frozen_task import FrozenTask
from .imaging.metrics import correlations, dice
from .left_out import FEWEST
from .named_types import Array, Bools, Doubles, Floats
from .predictor import Predictor, sigmoid
from .runners import Options, Runner
from .runners.shared import PreparedSupport, SharedEntries, written_out
from .support import Drawn, SupportSet

NEAR = 0.98  # correlation of images that count as near copies, such as neighbouring slices
SUPPORT = "support"
ENTRY_BYTES = 5  # of a pixel of an entry in an exact file: float32 image, label in a byte
LARGEST_ONNX = 2**31 - 2**20  # bytes: what protobuf reads, less some for names and the record

Maps = list[Floats]


class Opened(Protocol):
    """What freezing asks of a Segmenter."""

    bundle: Bundle
    runner: Runner

    @property
    def options(self) -> Options: ...


class Freezable(Predictor):
    """What it asks of a Task."""

    segmenter: Opened
    support: SupportSet
    ensemble: Ensemble

    @property
    @abstractmethod
    def draw(self) -> Draw: ...

    @property
    @abstractmethod
    def prepared(self) -> PreparedSupport | SharedEntries: ...


def freeze(
    task: Freezable, proxies: str | Sequence[Array] | Array, kind: str, max_loss: float, threshold: float | None,
    seed: int, half: bool,
) -> FrozenTask:
    """As `Task.freeze`."""
    if kind not in (*KINDS, AUTO):
        raise InputError(f"kind is {kind!r}; accepted: {AUTO}, {', '.join(KINDS)}")
    if isinstance(max_loss, bool) or not isinstance(max_loss, (int, float)) or not 0 <= max_loss <= 1:
        raise InputError(f"max_loss is {max_loss!r}; give a Dice from 0 to 1, such as 0.01 for a point")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed is {seed!r}; give an integer from 0")
    if threshold is not None:
        threshold = check_threshold(threshold)
        if kind == EXACT:
            raise InputError("an exact frozen task answers as its task, so threshold is not for it; give it to "
                             "predict, or take kind='static'")
    _ = task.prepared  # RunnerError where it is closed, InputError where each query has sets of its own
    images = None if isinstance(proxies, str) and proxies == SUPPORT else _on_grid(task, proxies)
    refused = _refusal(task)
    if kind == STATIC and refused:
        raise InputError(refused)
    if kind == EXACT or refused:
        return _exact(task, "asked for" if kind == EXACT else refused, Price(note="not measured"))
    drawn = Drawn.of(task.support, task.draw.used, task.grid, task.aspect, task.normalise)
    differing = left_out.differing(drawn.on_grid[:, 0])
    note = "" if differing >= FEWEST else (
        f"the price of a static task cannot be measured on {differing} different support "
        f"image{'s' * (differing != 1)}: leaving some out needs {FEWEST}")
    if note and (kind == AUTO or images is None):
        if kind == AUTO:
            return _exact(task, note, Price(note=note))
        raise InputError(f"{note}; give images as proxies, or take kind='exact'")
    try:
        without = [] if note else _leave_out(task, drawn, seed, images)
        constants = _mean([each.constants for each in without]) if images is None else _of_images(task, images)
        price, threshold = _price(task, without, half, threshold, note)
    except (RunnerError, BundleError) as error:  # a runner without constant maps, a bundle without the template
        if kind == AUTO:
            return _exact(task, str(error), Price(note="not measured"))
        raise
    reason = "asked for"
    if kind == AUTO:
        if price.loss is None:
            return _exact(task, price.note, price)
        lost = f"{price.loss:.3f} Dice, {max_loss:g} may be lost"
        if price.loss > max_loss:
            return _exact(task, f"static would lose {lost}", price)
        reason = f"static gains {-price.loss:.3f} Dice" if price.loss < 0 else f"static loses {lost}"
    said = "the support's own entries" if images is None else f"{len(images)} images given"
    return _static(task, constants, reason, price, said, threshold, half)


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """An entry left out: its image and label (h,w), the exact network's mask, the constants that its run gave, and
    those by which its static answer is judged: the mate's, or the given images'; None where there are none. Whether
    an entry that was not left out is nearly the same image."""

    image: Array
    label: Bools
    mask: Bools
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
            mates = [each for j, (_, each) in enumerate(runs) if j != i
                     and not np.array_equal(image, entries[members[j], 0])]
            by = given if images is not None else mates
            mask = np.average(sigmoid(logits[:, 0]), axis=0, weights=part) >= THRESHOLD
            others = [other for other in range(len(entries)) if other not in gone]
            near = bool((correlations(image, entries[others, 0]) > NEAR).any())
            out.append(_LeftOut(image, label >= 0.5, mask, constants, _mean(by) if by else None, near))
    return out


def _without(gone: Sequence[int], weights: Floats, shares: Doubles) -> tuple[Floats, Doubles]:
    """The sets (K,N) and their shares without these entries; where nothing is left of any, sets of one entry each."""
    kept = weights.copy()
    kept[:, gone] = 0
    whole = kept.sum(axis=1) > 0
    if not whole.any():
        kept = np.delete(np.eye(weights.shape[1], dtype=np.float32), gone, 0)
        return kept, np.full(len(kept), 1 / len(kept))
    return kept[whole] / kept[whole].sum(axis=1, keepdims=True), shares[whole] / shares[whole].sum()


def proxies_on_grid(
    task: Freezable, proxies: str | Sequence[Array] | Array, seed: int
) -> tuple[Floats, list[Bools] | None]:
    """The proxies that `Task.freeze` takes with the same arguments, (N,1,h,w) float32 in [0, 1], and their labels (h,w)
    where these are entries of the support. InputError as there."""
    if not isinstance(proxies, str) or proxies != SUPPORT:
        return _on_grid(task, proxies), None
    entries = Drawn.of(task.support, task.draw.used, task.grid, task.aspect, task.normalise).on_grid
    pairs = [entries[i] for i in left_out.chosen(len(entries), seed)]
    return np.stack([image[None] for image, _ in pairs]), [label >= 0.5 for _, label in pairs]


def _of_images(task: Freezable, images: Floats) -> Maps:
    """The mean constants of images (N,1,h,w) as queries of the whole task."""
    runner, shares = task.segmenter.runner, task.draw.shares
    return _mean([runner.mean_constants(task.prepared, image, shares)[1] for image in images])


def _price(
    task: Freezable, without: Sequence[_LeftOut], half: bool, threshold: float | None, note: str
) -> tuple[Price, float]:
    """Both kinds on the entries left out, and the threshold of static: the given one, or for None the one that these
    entries choose where it pays. note: why no entry was left out, where none was."""
    judged: list[_LeftOut] = []
    found: list[Floats] = []
    runner: FrozenRunner | None = None
    for each in without:
        if each.judged_by is None or not (each.label.any() or each.mask.any()):
            continue
        other = runner.with_constants(_stored(each.judged_by, half)) if runner else None
        runner = other or open_frozen_runner(
            _with_constants(task, each.judged_by, half), STATIC, task.segmenter.bundle.manifest.spec, "auto",
            task.segmenter.options)
        judged.append(each)
        found.append(np.asarray(sigmoid(runner.run(each.image[None, None])[0, 0]), np.float32))
    if not judged:
        note = note or "no entry that was left out marks anything, so no price could be measured"
        return Price(note=note), THRESHOLD if threshold is None else threshold
    exact = [dice(each.mask, each.label) for each in judged]
    unmoved = np.array([dice(p >= THRESHOLD, each.label) for p, each in zip(found, judged)])
    static = unmoved
    if threshold is not None:
        static = np.array([dice(p >= threshold, each.label) for p, each in zip(found, judged)])
    elif len(judged) > 1:
        chosen = choose([dice_at(p, each.label) for p, each in zip(found, judged)])
        if Gain.of(chosen.held_out, unmoved).pays:
            threshold, static = chosen.threshold, chosen.held_out
    threshold = THRESHOLD if threshold is None else threshold
    agreement = [dice(p >= threshold, each.mask) for p, each in zip(found, judged)]
    near = sum(each.has_near_copy for each in without)
    note = f"{near} of {len(without)} entries left out are near copies of others, which flatters exact" if near else ""
    price = Price(len(exact), float(np.mean(exact)), float(np.mean(static)), float(np.mean(agreement)), note,
                  unmoved_dice=float(np.mean(unmoved)))
    return price, threshold


def _on_grid(task: Freezable, images: str | Sequence[Array] | Array) -> Floats:
    if isinstance(images, str):
        raise InputError(f"proxies is {images!r}; accepted: {SUPPORT!r}, or images")
    placed = task.on_grid(images)
    if not len(placed):
        raise InputError("proxies are no images at all; give some of the task, or 'support'")
    return placed


def _refusal(task: Freezable) -> str:
    """Why the task's network has no static form; empty where it has one."""
    if task.segmenter.bundle.manifest.spec.cross_activation == "none":
        return ""
    return (
        "this network has an activation in the cross convolution, so it reads the support entry by entry and no "
        "constant map stands for it; take kind='exact'")


def _mean(maps: Sequence[Maps]) -> Maps:
    return [np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32) for each in zip(*maps, strict=True)]


# Files ----------------------------------------------------------------------------------------------------------------

def _static(
    task: Freezable, constants: Maps, reason: str, price: Price, proxies: str, threshold: float, half: bool
) -> FrozenTask:
    record = _record(task, STATIC, reason, price, proxies, threshold)
    model = sealed(_with_constants(task, constants, half, record))
    return FrozenTask.of_bytes(model, "auto", task.segmenter.options, task.notes, entries=task.entries)


def _exact(task: Freezable, reason: str, price: Price) -> FrozenTask:
    """The whole network with the support inside; labels in bytes, which loses nothing."""
    bundle, draw = task.segmenter.bundle, task.draw
    precision = task.segmenter.runner.precision
    network = bundle.load(precision, "whole").whole()
    entries = len(draw.places) * int((draw.weights > 0).sum(axis=1).max())
    size = len(network) + entries * (ENTRY_BYTES * task.grid[0] * task.grid[1])
    if size > LARGEST_ONNX:
        raise InputError(
            f"an exact file would hold {entries} entries, those of all members, in {size / 1e9:.1f} GB, and an ONNX "
            f"file holds up to {LARGEST_ONNX / 1e9:.1f} GB; prepare the task with fewer members or a smaller "
            "support_size, or take kind='static'")
    drawn = Drawn.of(task.support, draw.used, task.grid, task.aspect, task.normalise)
    support, weights = written_out(drawn.on_grid, draw.weights)
    # Members that drew the same set count as often as they did.
    support, weights = support[draw.places], weights[draw.places]
    record = _record(task, EXACT, reason, price, "none", THRESHOLD, precision)
    model = sealed(bind(
        network,
        {"support_images": support[:, :, :1], "support_labels": support[:, :, 1:].astype(np.uint8), "weights": weights},
        {KEY: record.to_json()},
        outputs=("probability",),
        query_size=task.grid,
    ))
    return FrozenTask(model, record, bundle.manifest.spec, None, task.notes, task, task.entries)


def _stored(constants: Maps, half: bool) -> list[Array]:
    """The constant maps as a file holds them; InputError where half precision cannot."""
    if half and max(float(np.abs(each).max()) for each in constants) > np.finfo(np.float16).max:
        raise InputError("the constant maps of this task are too large for half precision; freeze with half=False")
    return [each.astype(np.float16 if half else np.float32) for each in constants]


def _with_constants(task: Freezable, constants: Maps, half: bool, record: Record | None = None) -> bytes:
    """The static model with these constant maps inside, and with a record its threshold."""
    bundle = task.segmenter.bundle
    model = bundle.load("fp32", "static").whole()
    named = zip(bundle.manifest.spec.blocks(), _stored(constants, half), strict=True)
    values = {constant_name(block): each[None] for block, each in named}
    if record is not None and record.threshold != THRESHOLD:
        values[HEAD_BIAS] = tensors(model)[HEAD_BIAS] + np.float32(offset(record.threshold))
    return bind(
        model,
        values,
        {} if record is None else {KEY: record.to_json()},
        outputs=("probability",),
        query_size=task.grid,
    )


def _record(
    task: Freezable, kind: str, reason: str, price: Price, proxies: str, threshold: float, precision: str = "fp32"
) -> Record:
    manifest = task.segmenter.bundle.manifest
    return Record(
        kind, reason, task.grid, task.aspect, task.normalise, task.foreground, task.dims, task.support.sha256,
        len(task.support), task.ensemble.members, proxies, threshold, price, manifest.name, manifest.licence, precision,
        task.looks, task.support.label,
    )
