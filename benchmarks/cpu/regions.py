"""What options give in volumes: `--absent-below`, `--follow`, `--within` and `--region`, beside whole slices.

    python -m universeg_rt.benchmarks.cpu.regions --mni --volumes FOLDER ... [--axis AXIS ...] [--split test]

A volume's slices are asked in their order. `absent`: masks are emptied by the default of `--absent-below`.
`follow`: in a window around the mask of the slice before. `from a box`: the same from the slice with the most of the
label to both ends, there within a window that the user knows. `before`: around the true label of the slice before,
which is what following could give at best. `region`: in one window a volume, around the true label in all its slices,
as a user would draw it. `within L`: around the mask of the label L, as the network finds it in whole slices. Beside
them what needs no network: the atlas, and the copy of the most similar entry. Dice is over a volume, of slices that are
not in the support; gains have 95 % intervals over subjects.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain, repeat

import numpy as np

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.answers.absence import ABSENT_BELOW
from universeg_rt.benchmarks.cpu.quality import Row, add_network_options, made_with, mean_text
from universeg_rt.benchmarks.cpu.volume_sets import Scan, VolumeSet, add_volume_options, template, volume_sets
from universeg_rt.cli.common import importing, run_command
from universeg_rt.errors import InputError
from universeg_rt.imaging.metrics import dice
from universeg_rt.imaging.preprocess import Placement
from universeg_rt.refining import RefinedTask
from universeg_rt.storage.atomic import write_json

PROGRAM = "universeg_rt.benchmarks.cpu.regions"

with importing(__name__, PROGRAM):
    from universeg_rt.training.evaluation.baselines import atlas, copy

WAYS = ("absent", "follow", "from a box", "before", "region")
BASELINES = ("atlas", "copy")
ASPECT = "stretch"
WITHIN = "within "

Masks = list[np.ndarray]


def rows_of(segmenter: Segmenter, volumes: VolumeSet) -> Iterator[Row]:
    """Dice of each way for each volume and label."""
    names = volumes.support.label_names
    supports = {name: volumes.support.of(value) for value, name in names.items()}
    tasks = {name: segmenter.prepare(support).refine("off") for name, support in supports.items()}
    for scan in volumes.scans:
        whole = {name: task.task.predict_batch(scan.images, volume_range=scan.limits) for name, task in tasks.items()}
        for value, name in names.items():
            truth = [label == value for label in scan.labels]
            if not any(each.any() for each, scored in zip(truth, scan.scored) if scored):
                continue
            task, box = tasks[name], np.any(truth, axis=0)
            found = {
                "off": _masks(whole[name]),
                "absent": _emptied(task, scan, _masks(whole[name])),
                "follow": _masks(task.predict_in_order(scan.images, volume_range=scan.limits)),
                "from a box": _outwards(task, scan, truth),
                "before": _in(task, scan, [None, *truth[:-1]]),
                "region": _in(task, scan, [box] * len(truth)),
                **_without(supports[name], scan, segmenter.grid),
            }
            for other in names.values():
                if other != name:
                    found[WITHIN + other] = _in(task, scan, _masks(whole[other]))
            yield {"data": volumes.name, "label": name, "unit": scan.subject,
                   **{way: _score(masks, truth, scan.scored) for way, masks in found.items()}}


def _masks(answers: list) -> Masks:
    return [each.mask for each in answers]


def _emptied(task: RefinedTask, scan: Scan, masks: Masks) -> Masks:
    """As `universeg-segment` does it, where absence is judged."""
    if task.looks is None or scan.places is None:
        return masks
    told = [task.looks.presence(*each) for each in zip(scan.images, repeat(task.normalise), scan.places)]
    return [mask & (presence >= ABSENT_BELOW) for mask, presence in zip(masks, told)]


def _in(task: RefinedTask, scan: Scan, regions: list) -> Masks:
    return _masks(task.predict_in(scan.images, regions, volume_range=scan.limits))


def _outwards(task: RefinedTask, scan: Scan, truth: Masks) -> Masks:
    """Following from the slice with the most of the label to both ends, the first within its window."""
    start = int(np.argmax([each.sum() for each in truth]))
    up = task.predict_in_order(scan.images[start:], truth[start], volume_range=scan.limits)
    down = task.predict_in_order(scan.images[start::-1], truth[start], volume_range=scan.limits)
    return _masks([*down[:0:-1], *up])


def _without(support: SupportSet, scan: Scan, grid: tuple[int, int]) -> dict[str, Masks]:
    """The atlas and the copy of a support, for each slice."""
    entries = support.on_grid(grid, ASPECT)
    images, labels = entries[:, 0], entries[:, 1] >= 0.5
    members = Ensemble().draw(len(entries))
    share, threshold = atlas(labels, members)
    out: dict[str, Masks] = {name: [] for name in BASELINES}
    for image in scan.images:
        place = Placement.of(image.shape, grid, ASPECT)
        blank = image.min() == image.max()
        asked = np.zeros(grid) if blank else place.image_to_grid(image, grid)
        for name, (values, least) in zip(BASELINES, ((share, threshold), (copy(asked, images, labels, members), 0.5))):
            out[name].append((place.back(values.astype(np.float32)) >= least) & (not blank))
    return out


def _score(masks: Masks, truth: Masks, scored: np.ndarray) -> float:
    """Dice over the voxels of all slices that are scored."""
    kept = [i for i in range(len(truth)) if scored[i]]
    return dice(np.stack([masks[i] for i in kept]), np.stack([truth[i] for i in kept]))


def table(rows: list[Row]) -> str:
    """Markdown: a row a label; Dice in whole slices, what the other ways gain, and what needs no network."""
    lines = [f"| label | volumes | whole slices | {' | '.join(WAYS)} | within | {' | '.join(BASELINES)} |",
             f"| --- |{' ---: |' * (2 + len(WAYS))} --- |{' ---: |' * len(BASELINES)}"]
    groups = dict.fromkeys((str(row["data"]), str(row["label"])) for row in rows)
    for data, label in groups:
        part = [row for row in rows if (row["data"], row["label"]) == (data, label)]
        within = ", ".join(f"{way.removeprefix(WITHIN)} {_gain(part, way)}" for way in part[0] if WITHIN in way)
        cells = [mean_text(*_of(part, "off")), *(_gain(part, way) for way in WAYS), within,
                 *(f"{np.mean(_of(part, way)[0]):.3f}" for way in BASELINES)]
        lines.append(f"| {data}, {label} | {len(part)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _of(rows: list[Row], way: str) -> tuple[list[float], list[str]]:
    return [float(row[way]) for row in rows], [str(row["unit"]) for row in rows]


def _gain(rows: list[Row], way: str) -> str:
    return mean_text([float(row[way]) - float(row["off"]) for row in rows], _of(rows, way)[1], sign="+")


def _main(args: argparse.Namespace) -> int:
    if not args.volumes and not args.mni:
        raise InputError("no volumes are given; give --volumes, --mni or both")
    segmenter = Segmenter.open(args.bundle, threads=args.threads)
    rows: list[Row] = []
    supports: list[str] = []
    sets = (volumes for volumes, _ in volume_sets(args, args.absent))
    for volumes in chain(sets, [template()] if args.mni else []):
        rows += rows_of(segmenter, volumes)
        absent = sum(not label.any() for label in volumes.support.labels)  # volumes may have fewer than asked for
        supports.append(f"{volumes.name}: {len(volumes.support)} entries, {absent} of them without a label")
        if args.output:  # so far: it takes long
            write_json(args.output, rows)
    print(f"Dice over a volume, and what is gained over whole slices; support of {args.support_volumes} "
          f"subjects, {'; '.join(supports)}; split {' and '.join(args.split)}, {made_with(segmenter)}\n\n{table(rows)}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_volume_options(p)
    p.add_argument("--mni", action="store_true", help="add the MNI152 template, ten of its slices the support")
    p.add_argument("--absent", type=int, default=2, help="slices of the support without a label (2)")
    add_network_options(p)
    return run_command(_main, p, arguments)


if __name__ == "__main__":
    sys.exit(main())
