"""Where `universeg-segment` looks in images: in a box, around another label, or around the slice before."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..imaging.normalisation import Range
from ..imaging.windows import Box, check_region
from ..labelled import LabelledSupport
from ..labelled_predictor import LabelledPrediction, LabelledPredictor
from ..named_types import Array
from ..prediction import Prediction
from ..refining import RefinedTask
from ..support import SupportSet
from .common import as_options

OPTIONS = frozenset({"region", "within", "follow"})  # of which one can be given
Windows = Mapping[str, Box | None]  # where the next slice is looked at, by label; None: as a whole


@dataclass(frozen=True)
class Where:
    """region: a box of every image. within: the name of the label that the others are looked for around. follow: each
    slice of a volume is looked at around the mask of the slice before. keep_noise: as `Predictor.predict` takes it."""

    region: Box | None = None
    within: str | None = None
    follow: bool = False
    keep_noise: bool = False

    @classmethod
    def of(cls, args: argparse.Namespace, support: SupportSet | LabelledSupport, values: Mapping[str, int]) -> Where:
        """Of the options, for labels of these values by name; InputError where --within names none of several."""
        region = None if args.region is None else tuple(args.region)
        within = None if args.within is None else _label(args.within, support, values)
        return cls(region, within, args.follow, args.keep_noise)

    @property
    def whole(self) -> bool:
        """Whether every image is looked at as a whole."""
        return self.region is None and self.within is None and not self.follow

    @property
    def settings(self) -> dict[str, Any]:
        """For the report."""
        return {"region": self.region, "within": self.within, "follow": self.follow,
                "keep_noise": self.keep_noise}

    def predict(self, task: LabelledPredictor, images: list[Array], absent_below: float | None,
                names: list[str] | None = None, volume_range: Range | None = None,
                places: list[float] | None = None) -> list[LabelledPrediction]:
        """All labels of images (H,W), without an order. The label of `within` is looked for in whole images; for each
        image where its mask, before labels exclude one another, is empty, the others are looked for so too. names,
        volume_range, places: as `Predictor.predict_batch` takes them."""
        said: dict[str, Any] = {"names": names, "volume_range": volume_range, "keep_noise": self.keep_noise}
        if self.region is not None:
            box = [self.region] * len(images)
            return task.merged({name: each.predict_in(images, box, **said)
                                for name, each in _refined(task).items()})
        if self.within is None:
            return task.predict_batch(images, absent_below=absent_below, places=places, **said)
        refined = _refined(task)
        found = {self.within: refined.pop(self.within).predict_batch(images, **said)}
        masks = [each.mask for each in found[self.within]]
        for name, each in refined.items():
            found[name] = each.predict_in(images, masks, **said)
        return task.merged({name: found[name] for name in task.answering})

    def predict_in_order(self, task: LabelledPredictor, slices: list[Array], windows: Windows, names: list[str],
                         volume_range: Range) -> tuple[list[LabelledPrediction], dict[str, Box | None]]:
        """All labels of neighbouring slices, each label by `RefinedTask.predict_in_order` from its window on; and the
        windows for the slice after these. Masks are followed as they are before labels exclude one another."""
        found: dict[str, list[Prediction]] = {
            name: each.predict_in_order(slices, windows.get(name), names=names, volume_range=volume_range,
                                        keep_noise=self.keep_noise)
            for name, each in _refined(task).items()}
        after = {name: check_region(each[-1].mask, each[-1].mask.shape) for name, each in found.items()}
        return task.merged(found), after


def check_where(names: set[str]) -> None:
    """InputError where options that are given by `names` say different things of where to look."""
    looking = names & OPTIONS
    if len(looking) > 1:
        raise InputError(f"{as_options(looking)}: each says where to look; give one of them")
    if looking and "absent_below" in names:
        raise InputError(
            f"{as_options(looking)} and --absent-below: presence is judged of whole images; give one of the two")


def _refined(task: LabelledPredictor) -> dict[str, RefinedTask]:
    return {name: each for name, each in task.answering.items() if isinstance(each, RefinedTask)}


def _label(text: str, support: SupportSet | LabelledSupport, values: Mapping[str, int]) -> str:
    """The name of a label that is given by name or value."""
    if isinstance(support, SupportSet) or len(values) < 2:
        raise InputError(f"--within {text}: there is one label; give a support with several, and --label with more")
    value = support.value_of(text)
    for name, each in values.items():
        if each == value:
            return name
    raise InputError(f"--within {text}: it is not among those that --label takes, {', '.join(values)}; add it there")
