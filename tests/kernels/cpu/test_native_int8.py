"""The native kernels with maps held in int8 against a network written out with rounded maps, in float64."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[export]'")

from torch.nn.functional import conv2d, interpolate, leaky_relu, max_pool2d

from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.errors import BundleError
from universeg_rt.export.emit.native import native_arrays
from universeg_rt.export.emit.quantise import Quantisation, entry_convolutions
from universeg_rt.export.folds import fold
from universeg_rt.export.folds.folded import FoldedNetwork
from universeg_rt.runners.cpu.native import NativeRunner
from universeg_rt.spec import HALVED, SAME, NetworkSpec

from ...conftest import native_part, random_weights, write_native
from .test_native import SPECS, expected, inputs, instructions  # noqa: F401 (a fixture)

native = native_part()

pytestmark = pytest.mark.torch


def scales_of(network: FoldedNetwork, seed: int = 0) -> dict[str, np.ndarray]:
    """A scale for each channel of every map of the entries: some fine enough to cut values off, some coarse."""
    rng, out = np.random.default_rng(seed), {}
    for block in network.blocks:
        for part, weight in (("support_term", block.support_term_weight), ("support", block.support_weight)):
            if f"{block.label}/{part}" in entry_convolutions(network):
                out[f"{block.label}/{part}"] = np.exp(rng.uniform(np.log(0.01), np.log(0.1),
                                                                  weight.shape[1])).astype(np.float32)
    return out


def files(spec: NetworkSpec, without: str = " ", **options) -> tuple[dict, dict, FoldedNetwork]:
    """Scales, the arrays of the file, the network; maps whose reader's name holds `without` stay in float."""
    network = fold(spec, random_weights(spec, **options))
    scales = {name: value for name, value in scales_of(network).items() if without not in name}
    return scales, native_arrays(network, Quantisation({}, channels=scales)), network


def runner(tmp_path, spec: NetworkSpec, arrays: dict, threads: int = 2, instructions: str = "auto") -> NativeRunner:
    return NativeRunner(ModelBytes.of_file(write_native(tmp_path, arrays)), spec, threads, instructions)


def run(runner: NativeRunner, support, weights, query) -> np.ndarray:
    return runner.run(runner.prepare(support[None], weights[None]), query[None])[0, 0, 0]


class Rounded:
    """The folded network block by block: weights of the file with the scales taken out again, maps rounded to steps."""

    def __init__(self, spec: NetworkSpec, network: FoldedNetwork, scales: dict, arrays: dict) -> None:
        self.spec, self.blocks, self.arrays = spec, network.blocks, arrays
        self.term = [scales.get(f"{b.label}/support") for b in self.blocks]
        self.out: list = [None] * len(self.blocks)
        for block in self.blocks:
            read = scales.get(f"{block.label}/support_term")
            if read is not None:
                for edge in block.spec.sources:
                    features = self.blocks[edge.block].features
                    self.out[edge.block], read = read[:features], read[features:]
        for block in self.blocks:
            if block.support_weight is not None and f"{block.label}/support_term" not in scales:
                for edge in block.spec.sources:
                    if edge.resize == SAME:
                        self.out[edge.block] = None

    def weight(self, i: int, part: str) -> torch.Tensor:
        """(out,in,3,3) float64 in the units of the float32 network."""
        value = self.arrays[f"{i}.{part}.weight"].astype(np.float64)
        if f"{i}.{part}.scale" in self.arrays:
            scale = self.arrays[f"{i}.{part}.scale"].astype(np.float64)
            value = value * np.repeat(scale, value.shape[1] // scale.shape[1], axis=1)[:, :, None, None]
        rows, columns = {
            "cross": (self.term[i], None), "support": (self.out[i], self.term[i]), "target": (None, self.term[i])
        }[part]
        if part == "cross" and i > 0:
            sources = [edge.block for edge in self.blocks[i].spec.sources]
            read = [np.ones(self.blocks[s].features) if self.out[s] is None else self.out[s] for s in sources]
            columns = np.concatenate([np.ones_like(s) for s in read] + read)
        rows = 1.0 if rows is None else rows.astype(np.float64)[:, None, None, None]
        columns = 1.0 if columns is None else columns.astype(np.float64)[:, None, None]
        return torch.from_numpy(value * rows / columns)

    def bias(self, i: int, part: str) -> torch.Tensor:
        rows = {"cross": self.term[i], "support": self.out[i], "target": None}[part]
        return torch.from_numpy(self.arrays[f"{i}.{part}.bias"].astype(np.float64) * (1.0 if rows is None else rows))

    @staticmethod
    def steps(x: torch.Tensor, scale: np.ndarray | None) -> torch.Tensor:
        if scale is None:
            return x
        s = torch.from_numpy(scale.astype(np.float64))[:, None, None]
        return torch.clamp(torch.round(x / s), -127, 127) * s

    def __call__(self, support, weights, query) -> np.ndarray:
        def activate(x):
            return leaky_relu(x, self.spec.negative_slope)

        def double(x):
            return interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

        def mean(x):
            return torch.einsum("s,schw->chw", row, x)[None]

        def read(edge):
            """Query, entries and their mean of a block, as another reads them."""
            u, v, m, pooled_mean = states[edge.block]
            if edge.resize == HALVED:
                return max_pool2d(u, 2), max_pool2d(v, 2), pooled_mean
            if edge.resize == SAME:
                return u, v, m
            return double(u), self.steps(double(v), self.out[edge.block]), double(m)

        row, u = torch.from_numpy(weights).double(), torch.from_numpy(query).double()[None]
        v = torch.from_numpy(support).double()
        m, states = mean(v), []
        for i, block in enumerate(self.blocks):
            cross, target = self.weight(i, "cross"), self.weight(i, "target")
            if block.spec.sources:
                u, v, m = (torch.cat(maps, 1) for maps in zip(*map(read, block.spec.sources), strict=True))
            q = conv2d(u, cross[:, : u.shape[1]], self.bias(i, "cross"), padding=1)
            of_support = cross[:, u.shape[1] :]
            u = activate(conv2d(conv2d(m, of_support, padding=1) + q, target, self.bias(i, "target"), padding=1))
            if block.support_weight is not None:
                s = self.weight(i, "support")
                term = self.steps(conv2d(v, of_support, padding=1), self.term[i] if i else None)
                exact = activate(conv2d(term, s, padding=1) + conv2d(q, s, self.bias(i, "support"), padding=1))
                pooled_mean = mean(max_pool2d(exact, 2)) if block.spec.is_halved else None
                states.append((u, self.steps(exact, self.out[i]), mean(exact), pooled_mean))
        head = torch.from_numpy(self.arrays["head.weight"].astype(np.float64))
        return (torch.einsum("c,chw->hw", head, u[0]) + float(self.arrays["head.bias"][0])).numpy()


@pytest.mark.parametrize("name, size, entries, without", [("two", (22, 8), 5, " "), ("three", (36, 44), 3, " "),
                                                          ("four", (40, 88), 4, " "), ("five", (48, 16), 3, " "),
                                                          ("v1", (64, 64), 3, " "),
                                                          ("four", (16, 24), 3, "/support_term"),
                                                          ("four", (16, 24), 3, "dec"), ("three", (20, 24), 3, "enc")])
def test_as_the_network_with_rounded_maps(instructions, tmp_path, name, size, entries, without):
    """float32 sums may round another way than float64's where a value lies between two steps: a step, rarely."""
    spec = SPECS[name]
    scales, arrays, network = files(spec, without)
    case = inputs(entries, *size, 2)
    want, exact = Rounded(spec, network, scales, arrays)(*case), expected(spec, *case)
    got = run(runner(tmp_path, spec, arrays, instructions=instructions), *case)
    cost = np.abs(want - exact).mean()
    assert cost > 1e-4, "the rounding must show"
    assert np.abs(got - want).mean() < 0.1 * cost and np.median(np.abs(got - want)) < 0.02 * cost


def test_weights_come_back_within_half_a_step():
    spec = SPECS["three"]
    scales, arrays, network = files(spec)
    assert arrays["int8"].shape == (len(network.blocks) - 1, 2)
    assert arrays["int8"].tolist() == [[1, 0], *[[1, 1]] * (len(network.blocks) - 3), [0, 1]]
    back, seen = Rounded(spec, network, scales, arrays), 0
    for i, block in enumerate(network.blocks):
        inner = 0 < i < len(network.blocks) - 1
        for part, weight in (("cross", block.cross_weight), ("support", block.support_weight), ("target",
                                                                                                block.target_weight)):
            if weight is None:
                continue
            integers = arrays[f"{i}.{part}.weight"]
            assert (integers.dtype == np.int8) == inner == (f"{i}.{part}.scale" in arrays)
            error = np.abs(back.weight(i, part).numpy() - weight)
            if inner:
                # A step in the float32 network's units: what one more in the integers changes.
                arrays[f"{i}.{part}.weight"] = integers.astype(np.float64) + 1
                step = back.weight(i, part).numpy()
                arrays[f"{i}.{part}.weight"] = integers
                assert (error <= 0.501 * (step - back.weight(i, part).numpy())).all() and np.abs(integers).max() == 127
                seen += 1
            else:
                assert (error <= 1e-6 * np.abs(weight).max()).all()
    assert seen == 3 * (len(network.blocks) - 2)


def test_a_channel_that_is_always_zero_and_one_that_is_cut_off(tmp_path):
    """Scale 1 of nothing changes nothing; a value of thousands of steps stays at the last one without turning over."""
    spec = SPECS["three"]
    weights = random_weights(spec)
    weights["enc_blocks.1.support.vmapped.conv.weight"][2] = 0
    weights["enc_blocks.1.support.vmapped.conv.bias"][2] = 0
    network = fold(spec, weights)
    scales = scales_of(network)
    scales["dec0/support_term"][:] = 1e-5
    scales["dec0/support_term"][spec.encoder_features[2] + 2] = 1.0
    arrays = native_arrays(network, Quantisation({}, channels=scales))
    case = inputs(3, 36, 44)
    want = Rounded(spec, network, scales, arrays)(*case)
    got = run(runner(tmp_path, spec, arrays), *case)
    assert np.isfinite(got).all() and np.abs(got - want).mean() < 0.02 * np.abs(want).mean()


def test_the_number_of_threads_changes_no_bit(tmp_path):
    _, arrays, _ = files(SPECS["four"])
    results = [run(runner(tmp_path, SPECS["four"], arrays, threads), *inputs(5, 48, 80)) for threads in (1, 2, 3, 7)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_members_of_an_ensemble_are_as_alone(tmp_path):
    _, arrays, _ = files(SPECS["four"])
    opened = runner(tmp_path, SPECS["four"], arrays)
    cases = [inputs(3, 32, 40, seed) for seed in range(3)]
    support, weights = (np.stack([case[part] for case in cases]) for part in range(2))
    together = opened.run(opened.prepare(support, weights), cases[0][2][None])[0, :, 0]
    for i, case in enumerate(cases):
        assert np.array_equal(together[i], run(opened, *case[:2], cases[0][2]))


def replaced(name: str, make):
    return lambda arrays: arrays.update({name: make(arrays[name])})


@pytest.mark.parametrize(
    "change, message",
    [(lambda a: a.pop("2.cross.scale"), "no array 2.cross.scale"),
     (lambda a: a.pop("int8"), "array 1.cross.weight is of type int8, not float32"),
     (replaced("2.cross.scale", lambda x: x[:3]), r"array 2.cross.scale has shape \(3, 2\)"),
     (replaced("2.target.scale", lambda x: np.repeat(x, 3, axis=1)), "array 2.target.scale has shape"),
     (replaced("2.target.scale", lambda x: -x), "array 2.target.scale holds -.*; scales are positive"),
     (replaced("2.target.scale", lambda x: x * 0), "array 2.target.scale holds 0; scales are positive"),
     (replaced("2.target.scale",
               lambda x: x * 0 + np.float32(3e38)), "array 2.target.weight times its scales holds NaN or infinity"),
     (replaced("2.support.scale", lambda x: x * np.nan), "array 2.support.scale holds NaN or infinity"),
     (replaced("int8", lambda x: x[:-1]), r"array int8 has shape \(5, 2\), the network needs \(6, 2\)"),
     (replaced("int8", lambda x: x * 2), "array int8 holds other numbers than 0 and 1"),
     (replaced("int8", lambda x: x.astype(np.float32)), "array int8 is of type float32, not int8"),
     (replaced("int8", lambda x: np.ones_like(x)), "array int8 marks a map that is never stored"),
     (replaced("first", lambda x: np.full_like(x, np.inf)), "array first holds NaN or infinity"),
     (replaced("first", lambda x: x.astype(np.int32)), "array first is of type int32, not float32"),
     (replaced("head.bias", lambda x: x.astype(np.int8)), "array head.bias is of type int8"),
     (replaced("0.cross.bias", lambda x: x.astype(np.uint8)), "array 0.cross.bias is of type uint8"),
     (lambda a: a.update({"7.cross.weight": a["first"]}), "array '7.cross.weight' is none of this network's")])
def test_files_that_do_not_fit(tmp_path, change, message):
    _, arrays, _ = files(SPECS["four"])
    change(arrays)
    with pytest.raises(BundleError, match=f"native.json cannot be used .*{message}"):
        runner(tmp_path, SPECS["four"], arrays)
