"""Where the weights that the shipped bundle was exported from lie: in a clone, not in a wheel, which runs the bundle alone."""

from __future__ import annotations

from pathlib import Path

CHECKPOINT = Path(__file__).resolve().parents[1] / "weights" / "universeg_rt_v1.safetensors"
CURE = f"give --checkpoint: a clone of the project has that of the shipped bundle in training/weights/{CHECKPOINT.name}"
