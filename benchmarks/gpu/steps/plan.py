"""The steps in both orders: how long each runs at the most, and what of the upload folder it reads."""

from __future__ import annotations

from dataclasses import dataclass

REFERENCES, TASK, HALF_TASK, KERNELS, DATA = "references.npz", "task.onnx", "task_fp16.onnx", "kernels", "data"


@dataclass(frozen=True)
class Planned:
    """seconds: after which all of it has ended. reads: names in the upload folder."""

    seconds: float
    reads: tuple[str, ...] = ()


STEPS = {
    "short": Planned(540, (KERNELS, REFERENCES, HALF_TASK, DATA)),
    "a1": Planned(540, (KERNELS, REFERENCES, DATA)),
    "b1": Planned(110, (DATA,)),
    "b2": Planned(110, (TASK,)),  # with the last piece of a runtime
    "b6": Planned(540),
    "b7": Planned(590, (KERNELS, REFERENCES, TASK, HALF_TASK)),
}
# Minutes that b1 trains, so that b2 four times and b6 see its end, and of these the last that bring the rate to zero.
TRAINING, FINISH = 12.0, 3.0
SAVING = 70.0  # seconds that a run is given to save, and train_for.sh to pack
