"""The range of every number in a training configuration, in one table, and the check that asks it."""

from __future__ import annotations

import dataclasses
import math

from universeg_rt.errors import InputError, shown
from universeg_rt.training.settings.operation import Operation

TRAINING_TASKS = 1_000_000  # seeds from 0 that training may draw; tasks for anything else have larger ones
COUNT, SAMPLES, SHARE, AMOUNT, FACTOR = (1, 4096), (1, 10**12), (0.0, 1.0), (0.0, 10.0), (1e-3, 10.0)
SIGMA, DEGREES, RADIUS = (0.0, 100.0), (-360.0, 360.0), (1, 64)

# Lowest and highest value, both allowed, of each number in a field, be it one, a pair, or what a mapping holds. For an
# Operation they are its range's; None: it has none.
BOUNDS: dict[str, tuple[float, float] | None] = {
    "NetworkConfig.features": (1, 1024),
    "Stage.samples": SAMPLES,
    "Stage.size": COUNT,
    "Stage.entries": COUNT,
    "Stage.queries": COUNT,
    "Stage.episodes": COUNT,  # a step has 4096 seeds of its own
    "Stage.learning_rate": (1e-12, 1.0),
    "Stage.final_learning_rate": (0.0, 1.0),
    "Stage.average_samples": SAMPLES,
    "Stage.target_share": SHARE,
    "DataConfig.real_probability": SHARE,
    "DataConfig.crop_probability": SHARE,
    "DataConfig.crop_window": (1e-3, 1.0),
    "DataConfig.crop_alike": SHARE,
    "DataConfig.tiny_probability": SHARE,
    "DataConfig.absent_probability": SHARE,
    "DataConfig.repaint_probability": SHARE,
    "DataConfig.synthetic_tasks": (1, TRAINING_TASKS),
    "SyntheticConfig.families": (0.0, 1e6),
    "SyntheticConfig.background_probability": SHARE,
    "SyntheticConfig.deformation": AMOUNT,
    "SyntheticConfig.rotation": AMOUNT,
    "Appearance.noise": AMOUNT,
    "Appearance.texture": AMOUNT,
    "Appearance.blur": SIGMA,
    "Appearance.bias": AMOUNT,
    "Appearance.faint": SHARE,
    "Appearance.fundus": SHARE,
    "Appearance.textured": SHARE,
    "InTaskConfig.affine": DEGREES,
    "InTaskConfig.scale": FACTOR,
    "InTaskConfig.shift": (-1.0, 1.0),
    "InTaskConfig.elastic": AMOUNT,
    "InTaskConfig.brightness": (-1.0, 1.0),
    "InTaskConfig.contrast": AMOUNT,
    "InTaskConfig.gamma": FACTOR,
    "InTaskConfig.blur": SIGMA,
    "InTaskConfig.noise": AMOUNT,
    "InTaskConfig.sharpness": SIGMA,
    "TaskConfig.flip_horizontal": None,
    "TaskConfig.flip_vertical": None,
    "TaskConfig.rotate90": None,
    "TaskConfig.affine": DEGREES,
    "TaskConfig.scale": FACTOR,
    "TaskConfig.invert": None,
    "TaskConfig.gamma": FACTOR,
    "TaskConfig.contrast": (1e-3, 1.0),
    "TaskConfig.blur": SIGMA,
    "TaskConfig.noise": AMOUNT,
    "TaskConfig.sobel_image": None,
    "TaskConfig.local_contrast": (1e-3, 100.0),
    "TaskConfig.label_edge": RADIUS,
    "TaskConfig.label_dilate": RADIUS,
    "TaskConfig.label_erode": RADIUS,
    "TaskConfig.label_complement": None,
    "ValidationConfig.entries": COUNT,
    "ValidationConfig.queries": SAMPLES,
    "ValidationConfig.every_samples": SAMPLES,
    "TrainConfig.seed": (0, 2**30),  # episode seeds, some 2^32 for each of these, stay below 2^63
    "TrainConfig.static_weight": (0.0, 0.999),
    "TrainConfig.warmup_steps": (0, 10**9),
    "TrainConfig.clip_norm": (1e-12, 1e12),
    "TrainConfig.checkpoint_samples": SAMPLES,
    "TrainConfig.workers": (0, 256),
}


def check_numbers(config: object, where: str = "") -> None:
    """Raise InputError where a number in a config, or in one inside it, is not finite or outside BOUNDS, or where a
    pair of numbers does not go from low to high. `where` stands before the field's name in the message."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}{field.name}"
        bounds = BOUNDS.get(f"{type(config).__name__}.{field.name}")
        if isinstance(value, Operation):  # of an operation that is never done the range does not matter
            _check_values((value.probability,), name, SHARE)
            if value.probability > 0 and bounds is not None:
                _check_values(value.range, name, bounds)
        elif dataclasses.is_dataclass(value):
            check_numbers(value, f"{name}.")
        elif isinstance(value, dict):
            _check_values(tuple(value.values()), name, bounds)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for index, inner in enumerate(value):
                check_numbers(inner, f"{name}[{index}].")
        else:
            _check_values(value if isinstance(value, tuple) else (value,), name, bounds)
            if isinstance(value, tuple) and bounds is not None and list(value) != sorted(value):
                raise InputError(f"{name} is {shown(list(value))}; it goes from low to high")


def _check_values(values: tuple, name: str, bounds: tuple[float, float] | None) -> None:
    low, high = bounds or (-math.inf, math.inf)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not (low <= value <= high and (isinstance(value, int) or math.isfinite(value))):
            accepted = f"it must lie in [{low:g}, {high:g}]" if bounds else "it must be finite"
            raise InputError(f"{name} is {shown(value)}; {accepted}")
