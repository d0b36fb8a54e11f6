"""The steps in both orders: how long each runs at the most, and what of the upload folder it reads."""

from __future__ import annotations

from dataclasses import dataclass

REFERENCES, TASK, HALF_TASK, KERNELS, DATA = "references.npz", "task.onnx", "task_fp16.onnx", "kernels", "data"
# What the machine has of modules, and what fails where it is missing.
WANTS = {
    "torch": "nearly everything", "yaml": "the training", "tqdm": "the training",
    "onnxruntime": "the truth that frozen tasks are held against", "onnx": "the bundle, the plain export, engines",
    "ml_dtypes": "the kernels' correctness in bfloat16, which is left out then",
}
TRAINING_NEEDS = ("torch", "yaml", "tqdm")


@dataclass(frozen=True)
class Planned:
    """seconds: after which all of it has ended. reads: names in the upload folder. needs: of WANTS."""

    seconds: float
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


STEPS = {
    "short": Planned(540, (KERNELS, REFERENCES, HALF_TASK, DATA), (*TRAINING_NEEDS, "onnxruntime", "ml_dtypes")),
    "a1": Planned(540, (KERNELS, REFERENCES, DATA), (*TRAINING_NEEDS, "ml_dtypes")),
    "b1": Planned(110, (DATA,), TRAINING_NEEDS),
    "b2": Planned(110, (TASK,), ("torch", "onnxruntime")),  # with the last piece of a runtime
    "b6": Planned(540),
    "b7": Planned(590, (KERNELS, REFERENCES, TASK, HALF_TASK), ("torch", "onnxruntime", "onnx")),
}
# Minutes that b1 trains, so that b2 four times and b6 see its end, and of these the last that bring the rate to zero.
TRAINING, FINISH = 12.0, 3.0
SAVING = 70.0  # seconds that a run is given to save, and train_for.sh to pack
