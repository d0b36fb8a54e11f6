"""What `universeg-segment` segments by, a support that it prepares or a frozen file; and what the report says of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..answers.absence import ABSENT_BELOW
from ..answers.postprocess import Step, parse_steps
from ..ensemble import RANDOM, Ensemble
from ..errors import InputError
from ..frozen.record import KINDS
from ..frozen_task import FrozenTask
from ..imaging.normalisation import MINMAX, Normalisation, Percentiles, Range, Window
from ..imaging.preprocess import ASPECTS
from ..labelled import LabelledSupport
from ..labelled_predictor import ARGMAX, LabelledPrediction, LabelledPredictor
from ..named_types import Array
from ..predictor import Predictor
from ..refining import OFF, RefinedTask
from ..runners.threads import cores
from ..segmenter import Segmenter
from ..support import SupportSet
from ..supports.volumes import plane_of
from ..task import Task
from ..volumes.slicing import ACQUIRED
from .common import said_in_options
from .results import UNNAMED
from .supports import Labels
from .where import OPTIONS as WHERE
from .where import Where, Windows

# Of a support, where they are left out; beside --task one that is given is refused, whatever its value.
LEFT_OUT = {"members": 1, "seed": 0, "policy": RANDOM, "precision": "auto", "overlap": ARGMAX}
# A cure of `Task.freeze` in the words of this command.
FREEZING = {"give images as proxies, or ": "", **{f"kind={kind!r}": f"--freeze {kind}" for kind in KINDS}}


@dataclass(frozen=True, eq=False)
class Opened:
    """task: predicts all labels; one without a name has the name "". settings: what its results depend on, for the
    report. reason: why this runner. steps: that clean masks up. threads: of a CPU runner. where:
    images are looked at. plane: of the body that the support's entries lie in, empty where it is not known."""

    task: LabelledPredictor
    settings: dict[str, Any]
    reason: str
    steps: tuple[Step, ...] = ()
    threads: int | None = None
    where: Where = Where()
    plane: str = ""

    def predict(self, images: list[Array]) -> list[LabelledPrediction]:
        """All labels of images (H,W), as the options say."""
        return self.where.predict(self.task, images, self._below(judged=True, placed=False))

    def predict_slices(self, slices: list[Array], windows: Windows, names: list[str], volume_range: Range,
                       places: list[float] | None, *, judged: bool) -> tuple[list[LabelledPrediction], Windows]:
        """As `predict`, of slices that follow one another, with the range of intensities of their volume and their
        places there; and the windows for those after them, none where slices are not followed. judged: whether absence
        is: slices of another plane than the support's look absent, all of them."""
        if not self.where.follow:
            below = self._below(judged, places is not None)
            return self.where.predict(self.task, slices, below, names, volume_range, places), {}
        return self.where.predict_in_order(self.task, slices, windows, names, volume_range)

    @property
    def absent_below(self) -> float | None:
        """Presence below which masks are emptied; None: no mask is."""
        return None if self.settings["absent_below"] is None else float(self.settings["absent_below"])

    def _below(self, judged: bool, placed: bool) -> float | None:
        """`absent_below` of images. placed: whether their place in a volume is known; their look alone tells too
        little, and counts only where it was asked for."""
        return self.absent_below if judged and (placed or self.settings["absence_asked"]) else None

    def misfit(self, length: float | None) -> str:
        """Why places in a volume of this length, in mm, tell nothing of absence, as `Looks.misfit`; empty where they
        do."""
        known = (each.looks for each in self.task.answering.values())
        return next((why for looks in known if looks is not None and (why := looks.misfit(length))), "")

    @property
    def members(self) -> int:
        """Of the ensemble whose spread an answer has; one for a static task, which has none."""
        return 1 if self.frozen else int(self.settings["ensemble"]["members"])

    @property
    def smooths(self) -> bool:
        """Whether a step smooths probabilities across slices."""
        return any(step.name == "smooth" for step in self.steps)

    @property
    def normalise(self) -> Normalisation:
        return next(iter(self.task.answering.values())).normalise

    @property
    def frozen(self) -> dict[str, FrozenTask]:
        """The tasks that are frozen, by label."""
        return {name: task for name, task in self.task.answering.items() if isinstance(task, FrozenTask)}


def open_task(args: argparse.Namespace, support: SupportSet | LabelledSupport | None, taken: Mapping[str, Any]
              ) -> Opened:
    """Prepare `support`, or where there is none open the file that --task names; raises as the SDK does, in the words
    of the options. taken: of which slices the support is, for the report."""
    steps = parse_steps(args.post or ())
    if support is None:
        return _of_file(FrozenTask.open(args.task, runner=args.runner, threads=args.threads), args, steps)
    said = {name: value for name, value in vars(args).items() if value is not None}
    args = argparse.Namespace(**{**vars(args), **LEFT_OUT, **said})
    ensemble = Ensemble(args.members, args.support_size, args.replacement, args.seed, args.policy)
    segmenter = Segmenter.open(args.bundle, runner=args.runner, precision=args.precision, threads=args.threads)
    with said_in_options(FREEZING):
        tasks, values = _tasks(segmenter, support, ensemble, args)
        where = Where.of(args, support, values)
        first = next(iter(tasks.values()))
        answering = {name: _answering(task, args) for name, task in tasks.items()}
        task = LabelledPredictor(answering, values, args.overlap, reader=first)
    return Opened(task, {
        **_provenance(segmenter, ensemble, support, taken), "task": _how(task), **_images(first),
        **_answers(args, steps, task, where),
    }, segmenter.runner.reason, steps, segmenter.runner.threads, where, plane_of(support.names))


def support_notes(opened: Opened) -> dict[str, tuple[str, ...]]:
    """Of each label the notes on its support, those of a refined task's windows too: no image's own."""
    return {name: (*each.notes, *each.zoomed.notes) if isinstance(each, RefinedTask) else each.notes
            for name, each in opened.task.answering.items()}


def _tasks(segmenter: Segmenter, support: SupportSet | LabelledSupport, ensemble: Ensemble, args: argparse.Namespace
           ) -> tuple[dict[str, Task], dict[str, int]]:
    """A task for each label by its name, and the labels' values."""
    if isinstance(support, SupportSet):
        return {"": segmenter.prepare(support, ensemble, **image_options(args))}, {"": 1}
    labelled = segmenter.prepare_labels(support, ensemble, labels=Labels.of(args.label).chosen,
                                        overlap=args.overlap, **image_options(args))
    tasks = {name: task for name, task in labelled.tasks.items() if isinstance(task, Task)}
    return tasks, labelled.values


def _answering(task: Task, args: argparse.Namespace) -> Predictor:
    """The task that answers queries: itself, frozen, or refined."""
    if args.freeze is not None:
        return task.freeze(kind=args.freeze)
    return task.refine(args.refine or OFF) if args.refine or any(getattr(args, name) for name in WHERE) else task


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `Segmenter.prepare` takes for the options of `add_image_options`; InputError where a range is none."""
    return {"aspect": args.aspect or ASPECTS[0], "normalise": normalisation(args)}


def normalisation(args: argparse.Namespace) -> Normalisation:
    """What the options say of intensities; InputError for an unknown window."""
    if args.percentiles:
        return Percentiles(*args.percentiles)
    if not args.window:
        return MINMAX
    if len(args.window) == 1:
        return Window.preset(args.window[0])
    try:
        low, high = map(float, args.window)
    except ValueError:
        raise InputError(f"--window {' '.join(args.window)}: give LOW and HIGH, or the name of a window") from None
    return Window(low, high)


def _provenance(segmenter: Segmenter, ensemble: Ensemble, support: SupportSet | LabelledSupport,
                taken: Mapping[str, Any]) -> dict[str, Any]:
    manifest, runner = segmenter.bundle.manifest, segmenter.runner
    return {
        "bundle": {
            "name": manifest.name, "sha256": segmenter.bundle.sha256, "weights_sha256": manifest.weights_sha256,
            "licence": dict(manifest.licence)
        },
        "runner": {"name": runner.name, "precision": runner.precision},
        "support": {"entries": len(support), "sha256": support.sha256, **taken},
        "ensemble": {
            "members": ensemble.members, "support_size": ensemble.support_size or len(support),
            "replacement": ensemble.replacement, "seed": ensemble.seed, "policy": ensemble.policy
        },
    }


def _of_file(task: FrozenTask, args: argparse.Namespace, steps: tuple[Step, ...]) -> Opened:
    record, where = task.record, Where(keep_noise=args.keep_noise)
    value, name = record.label or (1, "")
    labelled = LabelledPredictor({name: task}, {name: value})
    return Opened(labelled, {
        "bundle": {"name": record.bundle, "licence": dict(record.licence)},
        "runner": {"name": task.runner.name, "precision": record.precision},
        "support": {"entries": record.support_entries, "sha256": record.support_sha256},
        "ensemble": {"members": record.members},
        "task": {"sha256": task.sha256, **_kind(task), "proxies": record.proxies},
        **_images(task), **_answers(args, steps, labelled, where),
    }, task.runner.reason, steps, args.threads or cores(), where, "" if record.looks is None else record.looks.plane)


def _how(task: LabelledPredictor) -> dict[str, Any] | None:
    """`_kind` of each label that was frozen."""
    found = {name or UNNAMED: _kind(each) for name, each in task.answering.items() if isinstance(each, FrozenTask)}
    return found or None


def _kind(task: FrozenTask) -> dict[str, Any]:
    return {"kind": task.kind, "reason": task.reason, "price": asdict(task.price), "threshold": task.threshold}


def _images(task: Predictor) -> dict[str, Any]:
    """How images get to the network."""
    return {"aspect": task.aspect, "normalise": str(task.normalise)}


def _absent_below(args: argparse.Namespace, task: LabelledPredictor, where: Where) -> float | None:
    """As it is given. Else where labelled volumes show where the target lies, and images are looked at as a whole,
    what is right for them."""
    if args.absent_below is not None or not where.whole:
        return args.absent_below or None
    known = [each.looks for each in task.answering.values()]
    return ABSENT_BELOW if any(looks is not None and looks.of_volumes for looks in known) else None


def _answers(args: argparse.Namespace, steps: tuple[Step, ...], task: LabelledPredictor, where: Where
             ) -> dict[str, Any]:
    """What labels there are and what is done to answers."""
    values: Mapping[str, int] = {name or UNNAMED: value for name, value in task.values.items()}
    return {"labels": dict(values), "overlap": task.overlap, "axis": args.axis or ACQUIRED, "time": args.time,
            "series": args.series, "post": [str(step) for step in steps],
            "absent_below": _absent_below(args, task, where), "absence_asked": args.absent_below is not None,
            **where.settings, "refine": {
                name or UNNAMED: asdict(each.choice)
                for name, each in task.answering.items() if isinstance(each, RefinedTask)}}
