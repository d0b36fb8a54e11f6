"""In-context segmentation with UniverSeg: a query image and a few labelled examples give a mask, without training.

    from universeg_rt import Segmenter, SupportSet, Ensemble
    segmenter = Segmenter.open()
    support = SupportSet.from_arrays(images, labels)
    task = segmenter.prepare(support, ensemble=Ensemble(members=5, support_size=64, replacement=True, seed=0))
    prediction = task.predict(image)
"""

from __future__ import annotations

from .bundle import Bundle
from .ensemble import Ensemble
from .errors import (
    BundleError,
    InputError,
    OutputError,
    RunnerError,
    UniverSegError,
)
from .segmenter import Estimate, Prediction, Segmenter, Task, Timing
from .support import SupportSet

__version__ = "0.1.0"

__all__ = [
    "Bundle", "BundleError", "Ensemble", "Estimate", "InputError", "OutputError", "Prediction", "RunnerError", "Segmenter",
    "SupportSet", "Task", "Timing", "UniverSegError",
]
