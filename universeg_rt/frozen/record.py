"""What a frozen file says of itself: a JSON text among the ONNX model's metadata, beside the bundle's own entries."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from ..answers.absence import Looks
from ..answers.thresholds import THRESHOLD
from ..errors import InputError
from ..imaging.normalisation import MINMAX, Normalisation, Percentiles, Window
from ..imaging.preprocess import ASPECTS, MOST_VALUE
from ..spec import BlockSpec
from ..support_file import Label

KEY = "universeg.frozen"
FORMAT = 4
STATIC, EXACT, AUTO = "static", "exact", "auto"
KINDS = (STATIC, EXACT)
PRECISION, INT8 = "universeg.precision", "int8"  # the metadata that state a model's precision; one of its values
SINGLE, HALF = "fp32", "fp16"  # the others that a static file may have
PROBABILITY = "probability"  # the file's output
LOGITS = "head/logits"  # the tensor of a static model that the last sigmoid reads
IMAGE = "universeg.image"  # the metadata that state the type of the image of a file that prepares it itself
IMAGE_TYPES = ("float32", "uint8")


def constant_name(block: BlockSpec) -> str:
    """Of the static model's input, or initialiser, that holds the block's constant map."""
    return f"constant_{block.index}"


@dataclass(frozen=True)
class Price:
    """What freezing costs, measured on entries of the support, each left out in turn with its mates; all on the
    network's grid. None: it could not be measured, `note` says why; else `note` is empty, or says what flatters a
    figure.

    entries: how many that show the target were left out, of which the Dice is. absent: how many that do not show it;
    exact_false, static_false: in how many of these each kind marks something. exact_threshold, static_threshold: the
    probability from which each kind marks. exact_dice, static_dice: mean Dice of both kinds against the entries'
    labels, marked so; where these two were chosen, each entry's is by what the others alone would have chosen.
    exact_at_half, static_at_half: the same marked from 0.5 on. agreement: mean Dice between the two kinds'
    masks.

    Of an int8 file also what rounding costs, measured on its proxies as they are, with the file's constants, so that a
    proxy from the support has its own label in them: compare these figures with one another, not with the others.
    int8_images: how many proxies. int8_agreement: mean Dice between the masks of int8 and of float. int8_dice,
    float_dice: mean Dice of both against the proxies' labels, where there are some.
    """

    entries: int = 0
    exact_dice: float | None = None
    static_dice: float | None = None
    agreement: float | None = None
    note: str = ""
    exact_threshold: float = THRESHOLD
    static_threshold: float = THRESHOLD
    exact_at_half: float | None = None
    static_at_half: float | None = None
    absent: int = 0
    exact_false: int = 0
    static_false: int = 0
    int8_images: int = 0
    int8_agreement: float | None = None
    int8_dice: float | None = None
    float_dice: float | None = None

    @property
    def loss(self) -> float | None:
        """What static loses: Dice, each kind marked from its own threshold on; or, where that is more, the share by
        which it marks something in more of the entries without the target than exact."""
        lost, more = self._dice_lost, self.static_false - self.exact_false
        return lost if lost is None or more <= 0 else max(lost, more / self.absent)

    @property
    def loss_is_of(self) -> str:
        """Which of the two `loss` is."""
        return "Dice" if self.loss == self._dice_lost else "of the entries without the target"

    @property
    def _dice_lost(self) -> float | None:
        return None if self.exact_dice is None or self.static_dice is None else self.exact_dice - self.static_dice

    def __str__(self) -> str:
        said = self.note if self.loss is None else (
            f"on {self.entries} entries left out in turn: Dice "
            f"{_marked(EXACT, self.exact_dice, self.exact_threshold, self.exact_at_half)}, "
            f"{_marked(STATIC, self.static_dice, self.static_threshold, self.static_at_half)}, "
            f"{self.agreement:.3f} between the two")
        if self.absent and self.loss is not None:
            said += (f"; of {self.absent} entries without the target, exact marks something in {self.exact_false}, "
                     f"static in {self.static_false}")
        if self.note and self.loss is not None:
            said += f" ({self.note})"
        if self.int8_agreement is None:
            return said
        said += (f"; of int8 on {self.int8_images} proxies, none left out: Dice {self.int8_agreement:.3f} between int8 "
                 "and float")
        return said if self.int8_dice is None else (
            f"{said}, against the labels {self.int8_dice:.3f} int8, {self.float_dice:.3f} float")


def _marked(kind: str, score: float | None, threshold: float, at_half: float | None) -> str:
    said = f"{score:.3f} {kind}"
    if threshold != THRESHOLD and at_half is not None:
        said += f" (marked from {threshold:g} on; from {THRESHOLD:g} on {at_half:.3f})"
    return said


@dataclass(frozen=True)
class Record:
    """kind: `static` or `exact`; reason: why this kind. grid: height and width of the network's images. aspect,
    normalise: how images get there, as `Segmenter.prepare` takes them. foreground: the share of pixels that the
    support's labels mark. dims: as Predictor's. support_sha256: as `SupportSet.sha256`. proxies: of what images the
    constants are. threshold: the probability from which the mask marks. bundle: its name. looks: as Predictor's, in
    JSON its `array` in base64 and its plane. label: what its masks mark, as `SupportSet.label`; in JSON value and name.
    """

    kind: str
    reason: str
    grid: tuple[int, int]
    aspect: str
    normalise: Normalisation
    foreground: float
    dims: bool
    support_sha256: str
    support_entries: int
    members: int
    proxies: str
    threshold: float
    price: Price
    bundle: str
    licence: Mapping[str, object]
    precision: str
    looks: Looks | None
    label: Label | None

    def to_json(self) -> str:
        how = self.normalise
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {
            "format": FORMAT, "price": asdict(self.price), "licence": dict(self.licence), "grid": list(self.grid),
            "normalise": how if isinstance(how, str) else {type(how).__name__.lower(): [how.low, how.high]},
            "looks": self.looks and [b64encode(self.looks.array.astype("<f4").tobytes()).decode(), self.looks.plane]
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Record:
        """ValueError where the metadata hold no record, one of another format, or one with values out of range."""
        if KEY not in metadata:
            raise ValueError(f"it has no {KEY!r} among its metadata")
        try:
            values = json.loads(metadata[KEY])
        except RecursionError:
            raise ValueError("its record is too deep") from None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ValueError(f"its record is not of format {FORMAT}")
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"its record lacks or has too much: {', '.join(sorted(set(values) ^ names))}")
        values["price"] = _price(_mapping(values["price"]))
        values["normalise"] = _normalisation(values["normalise"])
        values["licence"] = _mapping(values["licence"])
        values["looks"] = None if values["looks"] is None else _looks(values["looks"])
        values["label"] = None if values["label"] is None else _label(values["label"])
        texts, counts = ("reason", "support_sha256", "proxies", "bundle", "precision"), ("support_entries", "members")
        if not all(isinstance(values[name], str) for name in texts):
            raise ValueError("one of its texts is none")
        if not all(type(values[name]) is int and values[name] > 0 for name in counts):
            raise ValueError("one of its counts is none")
        grid = values["grid"]
        sides = grid if isinstance(grid, list) else []
        if len(sides) != 2 or not all(isinstance(side, int) and 8 <= side <= 2**14 for side in sides):
            raise ValueError(f"its images are {str(grid)[:50]}, not a height and a width")
        values["grid"] = (grid[0], grid[1])
        if values["kind"] not in KINDS or values["aspect"] not in ASPECTS:
            raise ValueError("its kind or aspect is unknown")
        if not isinstance(values["foreground"], float) or not 0 <= values["foreground"] <= 1:
            raise ValueError("its share of foreground is no share")
        _check_threshold(values["threshold"])
        if not isinstance(values["dims"], bool):
            raise ValueError("it does not say whether slices stay dim")
        return cls(**values)


def _check_threshold(value: object) -> None:
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError("one of its thresholds is no probability")


def _price(values: dict[str, Any]) -> Price:
    for name in ("exact_threshold", "static_threshold"):
        _check_threshold(values.get(name))
    counts = ("entries", "absent", "exact_false", "static_false", "int8_images")
    scores = [value for name, value in values.items() if name not in (*counts, "note")]
    if not all(value is None or isinstance(value, float) and 0 <= value <= 1 for value in scores):
        raise ValueError("its price holds a Dice that is none")
    price = Price(**values)
    if (price.int8_dice is None) != (price.float_dice is None) or price.int8_dice is not None is price.int8_agreement:
        raise ValueError("its price holds a part of the figures of int8")
    known = (price.exact_dice, price.static_dice, price.agreement, price.exact_at_half, price.static_at_half)
    if any(value is None for value in known) and any(value is not None for value in known):
        raise ValueError("its price holds a part of its figures")
    if not isinstance(price.note, str) or not all(
            type(getattr(price, name)) is int and getattr(price, name) >= 0 for name in counts) or max(
                price.exact_false, price.static_false) > price.absent:
        raise ValueError("its price holds a value of a wrong kind")
    return price


def _normalisation(value: object) -> Normalisation:
    if value == MINMAX:
        return MINMAX
    for kind in (Window, Percentiles):
        limits = value.get(kind.__name__.lower()) if isinstance(value, dict) else None
        if isinstance(limits, list) and len(limits) == 2:
            try:
                return kind(*limits)
            except InputError as error:
                raise ValueError(str(error)) from None
    raise ValueError("its normalisation is unknown")


def _looks(value: object) -> Looks:
    try:
        if isinstance(value, list) and [type(each) for each in value] == [str, str]:
            array = np.frombuffer(b64decode(value[0], validate=True), "<f4").reshape(2, -1)
            return Looks.of_array(array, value[1], "its record")
    except (ValueError, InputError):
        pass
    raise ValueError("what its record has under looks is none")


def _label(value: object) -> Label:
    if isinstance(value, list) and [type(each) for each in value] == [int, str]:
        label = Label(*value)
        if 1 <= label.value <= MOST_VALUE and label.name.strip():
            return label
    raise ValueError("its label is no value with a name")


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("its record holds a mapping that is none")
    return value
