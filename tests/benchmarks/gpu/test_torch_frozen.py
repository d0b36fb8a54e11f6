"""Static frozen files by PyTorch, node by node, held against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the contender is PyTorch")
onnx = pytest.importorskip("onnx", reason="it reads the file by onnx")

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.benchmarks.gpu.torch_frozen import FORMATS, TorchFrozen
from universeg_rt.errors import RunnerError
from universeg_rt.export.engine.frozen import in_precision
from universeg_rt.frozen.record import STATIC
from universeg_rt.frozen.runners import OnnxRuntime
from universeg_rt.runners.options import Options

from ...conftest import discs, native_part

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def files(typed_bundle) -> dict:
    """A frozen file of 32x32 pixels in each precision, and its network."""
    native_part()
    with Segmenter.open(typed_bundle, runner="native") as segmenter:
        frozen = segmenter.prepare(SupportSet.from_arrays(*discs(4)), Ensemble(1, 4)).freeze(kind="static")
        half = in_precision(frozen.model, "fp16", segmenter.bundle, frozen.spec, frozen.record.grid)
        return {"fp32": frozen.model, "fp16": half, "spec": frozen.spec}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("fp16", 0.05)])
@pytest.mark.parametrize("layout", list(FORMATS))
def test_logits_are_those_of_onnxruntime(files, precision, tolerance, layout):
    model = files[precision]
    queries = np.random.default_rng(0).random((3, 1, 32, 32), np.float32)
    wanted = OnnxRuntime(model, STATIC, files["spec"], Options()).run(queries)
    logits = TorchFrozen(model, "cpu", layout).run(queries)
    assert logits.dtype == np.float32 and np.abs(logits - wanted).max() < tolerance * np.abs(wanted).max()


def test_another_operator_is_refused_by_name(files):
    model = onnx.load_from_string(files["fp32"])
    next(node for node in model.graph.node if node.op_type == "LeakyRelu").op_type = "Softplus"
    with pytest.raises(RunnerError, match="Softplus"):
        TorchFrozen(model.SerializeToString(), "cpu", "nchw").run(np.zeros((1, 1, 32, 32), np.float32))
