"""Every form of a network follows from the one statement of its topology: other depths and widths, and another
topology."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.benchmarks.gpu.folded_torch import FoldedInference
from universeg_rt.errors import RunnerError
from universeg_rt.export.emit import emit_predict, emit_prepare, emit_stages, emit_whole
from universeg_rt.export.emit.native import native_arrays
from universeg_rt.export.folds import fold
from universeg_rt.export.folds.cost import network_cost
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.spec import DOUBLED, HALVED, SAME, NetworkSpec
from universeg_rt.training.network.folded_forward import FoldedUniverSeg
from universeg_rt.training.network.reference import UniverSeg

from ..conftest import native_model, native_part, random_weights
from .emit.test_emit import episode, evaluator_of, run_stages

pytestmark = pytest.mark.torch


class WithoutFirstSkip(NetworkSpec):
    """A variant by one change: the last block reads no skip connection."""

    def topology(self):
        *others, (name, level, (below, _)) = super().topology()
        return [*others, (name, level, (below,))]


V1 = dict(cross_activation="none", downsample="max_pool", negative_slope=1 / 64)
SPECS = {
    "two": NetworkSpec(encoder_features=(7, 3), decoder_features=(5, ), **V1),
    "four": NetworkSpec(encoder_features=(6, 8, 5, 6), decoder_features=(7, 4, 9), **V1),
    "five": NetworkSpec("leaky_relu", (4, 3, 5, 2, 6), (3, 7, 2, 4), "bilinear", negative_slope=1 / 64),
    "four, activated": NetworkSpec("leaky_relu", (3, 8, 5, 6), (7, 4, 9), "max_pool", negative_slope=1 / 64),
    "without the first skip": WithoutFirstSkip(encoder_features=(6, 5, 7), decoder_features=(4, 6), **V1),
    "without the first skip, activated": WithoutFirstSkip("leaky_relu", (6, 5, 7), (4, 6), "bilinear",
                                                          negative_slope=1 / 64),
}


class Case:
    """A network, one query, one support with unequal weights, and the reference's logits (H,W)."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.spec, self.weights = spec, random_weights(spec, dtype=np.float64)
        self.network = fold(spec, self.weights)
        side = max(8, 2 * spec.size_multiple)
        self.query, self.images, self.labels = episode(spec, 1, 1, 3, side, 2 * side)
        self.row = np.array([[0.5, 0.2, 0.3]])
        self.expected = self.torch(UniverSeg)

    def torch(self, cls: type) -> np.ndarray:
        model = cls(self.spec).double()
        model.load_state_dict({name: torch.from_numpy(value) for name, value in self.weights.items()})
        with torch.inference_mode():
            given = [torch.from_numpy(x) for x in (self.query, self.images, self.labels, self.row)]
            return model(*given).numpy()[0, 0]

    def off(self, logits: np.ndarray) -> float:
        return float(np.abs(logits.reshape(self.expected.shape) - self.expected).max() / np.abs(self.expected).max())

    @property
    def support(self) -> dict[str, np.ndarray]:
        return {"support_images": self.images, "support_labels": self.labels, "weights": self.row}


@pytest.fixture(scope="module", params=SPECS)
def case(request) -> Case:
    return Case(SPECS[request.param])


def test_folded_forward(case):
    assert case.off(case.torch(FoldedUniverSeg)) < 1e-9


def test_whole(case):
    whole = evaluator_of(emit_whole(case.network, {}, "0", np.float64))
    assert case.off(whole.run(["logits"], {"query": case.query, **case.support})[0]) < 1e-9


def test_pair(case):
    prepare, predict = (evaluator_of(emit(case.network, {}, "0", np.float64)) for emit in (emit_prepare, emit_predict))
    made = dict(zip(prepare.output_names, prepare.run(None, case.support)))
    assert case.off(predict.run(["logits"], {"query": case.query, **made})[0]) < 1e-9


def test_stages(case):
    stages = emit_stages(case.network, {}, "0", np.float64)
    assert case.off(run_stages(stages, case.query[0], case.images[0], case.labels[0], case.row[0], 2)) < 1e-9


def test_folded_in_torch_for_the_gpu(case):
    if case.spec.cross_activation != "none":
        pytest.skip("it is written for the released variant")
    net = FoldedInference(case.spec, case.weights, "cpu", torch.float64)
    support = torch.from_numpy(np.concatenate([case.images, case.labels], 2))
    with torch.inference_mode():
        logits = net.forward(torch.from_numpy(case.query), net.prepare(support, torch.from_numpy(case.row).float()))
    assert case.off(logits.numpy()) < 1e-5  # means in float32


def test_native(case):
    native_part()
    arrays = native_arrays(fold(case.spec, {name: value.astype(np.float32) for name, value in case.weights.items()}))
    if case.spec.cross_activation != "none":
        assert arrays is None
        return
    weights = native_model(arrays)
    if isinstance(case.spec, WithoutFirstSkip):
        with pytest.raises(RunnerError, match="topology.*onnxruntime"):
            NativeRunner(weights, case.spec, 1)
        return
    runner = NativeRunner(weights, case.spec, 1)
    support = np.concatenate([case.images, case.labels], 2).astype(np.float32)
    prepared = runner.prepare(support, case.row.astype(np.float32))
    assert case.off(runner.run(prepared, case.query.astype(np.float32))) < 1e-4


def test_the_cost_table_knows_what_is_read(case):
    rows = network_cost(case.network, 32, 32)
    assert [row.block for row in rows] == [block.name for block in case.spec.blocks()]
    if case.spec.cross_activation == "none":
        assert rows[-1].folded_entry.flop == 0 and all(row.folded_entry.flop > 0 for row in rows[:-1])


def test_what_reads_and_what_is_read_agree():
    for spec in SPECS.values():
        blocks = spec.blocks()
        for block in blocks:
            assert all(blocks[e.block].index < block.index for e in block.sources)
            assert {(e.block, block.index, e.resize) for e in block.sources} == {
                (b.index, e.block, e.resize) for b in blocks for e in b.readers if e.block == block.index}
            change = {HALVED: 1, SAME: 0, DOUBLED: -1}
            assert all(blocks[e.block].level + change[e.resize] == block.level for e in block.sources)
        assert [b.is_first for b in blocks] == [True] + [False] * (len(blocks) - 1)
        assert [b.is_last for b in blocks] == [False] * (len(blocks) - 1) + [True]


def test_a_variant_has_the_weights_that_it_reads():
    spec = SPECS["without the first skip"]
    assert spec.weight_shapes()["dec_blocks.1.cross.cross_conv.weight"][1] == 2 * 4
    assert replace(spec, negative_slope=0.5).blocks() == spec.blocks()
