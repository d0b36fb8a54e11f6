"""In-context segmentation with UniverSeg: a query image and a few labelled examples give a mask, without training.

    from universeg_rt import Segmenter, SupportSet, Ensemble
    segmenter = Segmenter.open()
    support = SupportSet.from_arrays(images, labels)
    task = segmenter.prepare(support, Ensemble(members=1, support_size=16))
    prediction = task.predict(image)
"""

from __future__ import annotations

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
    from .segmenter import Estimate as Estimate
    from .segmenter import Prediction as Prediction
    from .segmenter import Segmenter as Segmenter
    from .segmenter import Task as Task
    from .segmenter import Timing as Timing
    from .support import SupportSet as SupportSet

__version__ = "0.1.0"

_HOME = {
    "Bundle": "bundle.bundle", "Ensemble": "ensemble", "SupportSet": "support",
    **dict.fromkeys(("BundleError", "InputError", "OutputError", "RunnerError", "UniverSegError"), "errors"),
    **dict.fromkeys(("Estimate", "Prediction", "Segmenter", "Task", "Timing"), "segmenter"),
}
__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: a command can then handle an interruption while NumPy is being imported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_HOME[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
