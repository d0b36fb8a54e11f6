"""Writes a FoldedNetwork as ONNX: one whole model, the same cut in two (prepare, predict), the stages that stream the
support through it, and the static network that reads no support."""

from __future__ import annotations

from .stages import emit_stages
from .static import emit_static
from .whole import emit_predict, emit_prepare, emit_whole

__all__ = ["emit_predict", "emit_prepare", "emit_stages", "emit_static", "emit_whole"]
