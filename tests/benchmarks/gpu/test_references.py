"""Logits of the reference that were computed beforehand are used in place of a run, for the same weights alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the benchmark needs torch")
pytest.importorskip("onnx", reason="emitting the models needs onnx")

from universeg_rt.benchmarks.gpu import contenders, parity, references
from universeg_rt.errors import InputError
from universeg_rt.export.gate.parity import Reference

from ...conftest import SMALL_SPEC, random_weights
from .state import make_state

pytestmark = pytest.mark.torch


def test_the_parity_reads_them_and_runs_no_reference(tmp_path, monkeypatch):
    state, file = make_state(tmp_path), tmp_path / "references.npz"
    references.save(file, Reference(state["spec"], state["weights"]), state["support_sizes"], tuple(state["grid"]))
    state["options"].references = file
    state["contenders"] = {"folded": contenders.TorchFolded(state, "fp16")}
    monkeypatch.setattr(Reference, "_run", lambda *_: pytest.fail("the reference ran"))
    entry: dict = {}
    parity.run_parity(state, entry)
    assert entry["passed"] is True and entry["reference"] == "references.npz"
    with np.load(file) as held:
        assert {"image-like_32_32_2_half", "random_32_32_2_float"} <= set(held.files)
    with pytest.raises(InputError, match="is of other weights"):
        references.load(file, Reference(SMALL_SPEC, random_weights(SMALL_SPEC, seed=5)))
    file.write_bytes(b"no archive")
    with pytest.raises(InputError, match="references.npz"):
        references.load(file, Reference(state["spec"], state["weights"]))
