"""Writes a FoldedNetwork as ONNX: one whole model, the same cut in two (prepare, predict), and the stages that stream
the support through it."""

from __future__ import annotations

from .stages import emit_stages
from .whole import emit_predict, emit_prepare, emit_whole

__all__ = ["emit_predict", "emit_prepare", "emit_stages", "emit_whole"]
