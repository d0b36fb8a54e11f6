"""In-context segmentation with UniverSeg: a query image and a few labelled examples give a mask, without training.

    from universeg_rt import Segmenter, SupportSet, Ensemble
    segmenter = Segmenter.open()
    support = SupportSet.from_arrays(images, labels)
    task = segmenter.prepare(support, Ensemble(members=1, support_size=16))
    prediction = task.predict(image)

`available_runners()` says what runs here.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bundle.bundle import Bundle as Bundle
    from .ensemble import Ensemble as Ensemble
    from .errors import BundleError as BundleError
    from .errors import InputError as InputError
    from .errors import OutputError as OutputError
    from .errors import RunnerError as RunnerError
    from .errors import UniverSegError as UniverSegError
    from .frozen_task import FrozenTask as FrozenTask
    from .imaging.normalisation import Percentiles as Percentiles
    from .imaging.normalisation import Window as Window
    from .labelled import LabelledSupport as LabelledSupport
    from .labelled import LabelledTask as LabelledTask
    from .labelled_predictor import LabelledPrediction as LabelledPrediction
    from .prediction import Prediction as Prediction
    from .prediction import Timing as Timing
    from .runners.choose import RunnerState as RunnerState
    from .runners.choose import available_runners as available_runners
    from .segmenter import Estimate as Estimate
    from .segmenter import Segmenter as Segmenter
    from .support import SupportSet as SupportSet
    from .task import Task as Task

__version__ = "0.1.0"

# What falls back is logged under this name; where a program sets no logging up, nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOME = {
    "Bundle": "bundle.bundle", "Ensemble": "ensemble", "FrozenTask": "frozen_task", "SupportSet": "support",
    "Task": "task",
    **dict.fromkeys(("BundleError", "InputError", "OutputError", "RunnerError", "UniverSegError"), "errors"),
    **dict.fromkeys(("Estimate", "Segmenter"), "segmenter"),
    "LabelledPrediction": "labelled_predictor",
    **dict.fromkeys(("LabelledSupport", "LabelledTask"), "labelled"),
    **dict.fromkeys(("Percentiles", "Window"), "imaging.normalisation"),
    **dict.fromkeys(("Prediction", "Timing"), "prediction"),
    **dict.fromkeys(("RunnerState", "available_runners"), "runners.choose"),
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: a command can then handle an interruption while NumPy is being
    imported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
