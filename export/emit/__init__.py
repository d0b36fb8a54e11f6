"""ONNX emission from a FoldedNetwork: one whole model, and the stages that stream the support through it."""

from __future__ import annotations

from .stages import emit_stages
from .whole import emit_whole

__all__ = ["emit_stages", "emit_whole"]
