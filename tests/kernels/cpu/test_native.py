"""The native CPU kernels against the reference network, with each instruction set; their threads under the
sanitizers."""

from __future__ import annotations

import functools
import itertools
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[export]'")

from universeg_rt.export.emit.native import native_arrays
from universeg_rt.export.folds import fold
from universeg_rt.runners.cpu.native import INSTRUCTIONS, places
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.reference import UniverSeg

from ...conftest import native_part, random_weights
from .selftest import FOLDER, PARTS, compile_selftest, write_networks

native = native_part()
ON_X86 = platform.machine() in ("x86_64", "AMD64")

pytestmark = pytest.mark.torch

# Two to five stages; features that fill no vector, and as many as v1 has.
SPECS = {
    "three": NetworkSpec("none", (6, 5, 7), (4, 6), "max_pool"),
    "two": NetworkSpec("none", (9, 33), (3,), "max_pool", negative_slope=0.2),
    "four": NetworkSpec("none", (12, 20, 8, 24), (16, 40, 8), "max_pool"),
    "five": NetworkSpec("none", (5,) * 5, (6,) * 4, "max_pool"),
    "v1": NetworkSpec.preset("v1"),
}


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request) -> str:
    if request.param not in native.available():
        pytest.skip(
            f"this processor lacks {request.param} (the logic of those kernels is tested by the self-test below)")
    return request.param


def arrays(spec: NetworkSpec) -> dict[str, np.ndarray]:
    return native_arrays(fold(spec, random_weights(spec)))


def network(spec: NetworkSpec, instructions: str = "auto", threads: int = 2):
    return native.Network(arrays(spec), places(spec), spec.negative_slope, instructions, threads)


def inputs(entries: int, height: int, width: int, seed: int = 0):
    """Support (S,2,H,W) with labels of all kinds (constant, a shape, noise), unequal weights, a query (1,H,W)."""
    rng = np.random.default_rng(seed)
    support = rng.random((entries, 2, height, width), np.float32)
    for i in range(entries):
        kind = (i + seed) % 4
        if kind < 2:
            support[i, 1] = kind
        elif kind == 2:
            support[i, 1] = 0
            support[i, 1, height // 4 :, 3 : width // 2] = 1
        else:
            support[i, 1] = support[i, 1] > 0.5
    weights = rng.random(entries).astype(np.float32) + 0.1
    return support, weights / weights.sum(), rng.random((1, height, width), np.float32)


def expected(spec: NetworkSpec, support, weights, query) -> np.ndarray:
    """The reference in float64."""
    reference = UniverSeg(spec).double().eval()
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in random_weights(spec).items()})
    x = torch.from_numpy(support).double()[None]
    with torch.no_grad():
        return reference(torch.from_numpy(query).double()[None], x[:, :, :1], x[:, :, 1:],
                         torch.from_numpy(weights).double()[None])[0, 0].numpy()


@functools.cache
def case(spec: NetworkSpec, entries: int, height: int, width: int, seed: int = 0):
    """Inputs and what is expected of them, computed once for all sets of instructions."""
    given = inputs(entries, height, width, seed)
    return given, expected(spec, *given)


# A size that whole tiles fill at every level, and sizes that they do not.
@pytest.mark.parametrize("name, size, entries", [
    ("two", (8, 10), 1), ("two", (22, 8), 5), ("three", (36, 44), 3), ("three", (8, 52), 1), ("four", (16, 24), 2),
    ("four", (40, 88), 4), ("five", (48, 16), 3), ("v1", (64, 64), 9), ("v1", (128, 136), 2)])
def test_as_the_reference(instructions, name, size, entries):
    spec = SPECS[name]
    for seed in range(2):
        (support, weights, query), want = case(spec, entries, *size, seed)
        logits = network(spec, instructions).run([native.prepare(support, weights)], query)
        assert logits.shape == (1, 1, *size) and np.abs(logits[0, 0] - want).max() < 2e-5 * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("features, fastest", [(64, "avx512"), (32, "avx512"), (48, "avx2"), (16, "avx2"),
                                               (8, "plain")])
def test_the_instructions_with_the_least_padded_work_are_taken(features, fastest):
    if fastest not in native.available() or not ON_X86:
        pytest.skip(f"this processor lacks {fastest}")
    spec = NetworkSpec("none", (features,) * 3, (features,) * 2, "max_pool")
    assert network(spec).instructions == fastest


def test_many_entries_go_through_in_chunks(instructions):
    """Of four, as a chunk is of 4 MiB, and one of two."""
    spec = NetworkSpec("none", (16,) * 2, (16,), "max_pool")
    (support, weights, query), want = case(spec, 18, 128, 128)
    got = network(spec, instructions).run([native.prepare(support, weights)], query)[0, 0]
    assert np.abs(got - want).max() < 2e-5 * max(1.0, np.abs(want).max())


def test_labels_need_not_be_binary():
    support, weights, query = inputs(2, 32, 40)
    support[:, 1] *= 0.4
    got = network(SPECS["three"]).run([native.prepare(support, weights)], query)[0, 0]
    assert np.abs(got - expected(SPECS["three"], support, weights, query)).max() < 1e-4


def test_the_number_of_threads_changes_no_bit():
    support, weights, query = inputs(5, 48, 80)
    prepared = [native.prepare(support, weights)]
    results = [network(SPECS["four"], threads=n).run(prepared, query) for n in (1, 2, 3, 7, 16)]
    assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_a_loop_takes_in_no_more_threads_than_it_has_items(threads):
    support, weights, query = inputs(5, 48, 80)
    net = network(SPECS["four"], threads=threads)
    want = net.run([native.prepare(support, weights)], query)
    loops = net.loops([native.prepare(support, weights)], query)
    assert len(loops) > 20 and all(taken == min(threads, len(seconds)) for taken, seconds in loops)
    assert np.array_equal(net.run([native.prepare(support, weights)], query), want)  # records no more


def test_more_threads_have_more_items_where_rows_are_few():
    support, weights, query = inputs(5, 48, 80)
    prepared = native.prepare(support, weights)
    few, many = ([len(seconds) for _, seconds in network(SPECS["four"], threads=n).loops([prepared], query)]
                 for n in (1, 16))
    assert all(a <= b for a, b in zip(few, many, strict=True)) and min(many) > min(few)


def test_sizes_sets_and_callers_may_change_between_runs():
    net = network(SPECS["three"])
    cases = [inputs(entries, *size) for entries, size in itertools.product((1, 4), ((16, 24), (40, 8)))]
    alone = [network(SPECS["three"]).run([native.prepare(s, w)], q) for s, w, q in cases]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(lambda c: net.run([native.prepare(*c[:2])] * 2, c[2]), cases[i % 4]) for i in range(24)]
        for i, job in enumerate(jobs):
            assert all(np.array_equal(found, alone[i % 4][0, 0]) for found in job.result()[0])


@pytest.mark.parametrize("entries", [3, 21])  # 64 MiB hold what queries share of 16 entries of this size
def test_a_batch_gives_the_bits_of_its_queries_alone(instructions, entries):
    spec = NetworkSpec("none", (64, 16), (16,), "max_pool")
    support, weights, query = inputs(entries, 128, 128)
    queries = np.concatenate([query, inputs(1, 128, 128, 5)[2], query[:, ::-1]])
    net = network(spec, instructions)
    sets = [native.prepare(support, weights), native.prepare(support[:2], weights[:2])]
    alone = np.concatenate([net.run(sets, each[None]) for each in queries])
    assert alone.shape == (3, 2, 128, 128) and np.array_equal(net.run(sets, queries), alone)
    assert np.array_equal(net.run(sets[1:], queries), alone[:, 1:]), "what another run left is not taken"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_batch_runs_where_memory_does_not_hold_what_its_queries_share():
    """In a process of its own: what wrote to memory that was not there ended the process."""
    code = """
import resource
import numpy as np
from tests.kernels.cpu.test_native import NetworkSpec, inputs, native, network

net = network(NetworkSpec("none", (64, 16), (16,), "max_pool"), threads=1)
support, weights, query = inputs(16, 128, 128)
large, small = [native.prepare(support, weights)], [native.prepare(support[:2], weights[:2])]
queries = np.concatenate([query, query[:, ::-1]])
wanted = [np.concatenate([net.run(sets, each[None]) for each in queries]) for sets in (large, small)]
assert np.array_equal(net.run(small, queries), wanted[1])
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 30 * 2**20, -1))  # the terms of 16 entries take 64 MiB
assert np.array_equal(net.run(large, queries), wanted[0])
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert np.array_equal(net.run(small, queries), wanted[1])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode} {done.stderr}"


def test_the_prepared_support_keeps_what_it_reads():
    support, weights, query = inputs(3, 16, 24)
    net = network(SPECS["three"])
    want = net.run([native.prepare(support, weights)], query)
    prepared = native.prepare(support[:, :].astype(np.float64),
                              weights.tolist())  # converted: nobody else holds the copy
    np.full(200_000, 7.0, np.float32)
    assert np.array_equal(net.run([prepared], query), want)


@pytest.mark.parametrize("change, message", [
    (lambda a: a.pop("2.cross.bias"), "no array 2.cross.bias"),
    (lambda a: a.update({"first": a["first"][:8]}), "array first has another shape")])
def test_weights_that_do_not_fit(change, message):
    spec, values = SPECS["three"], arrays(SPECS["three"])
    change(values)
    with pytest.raises(ValueError, match=message):
        native.Network(values, places(spec), 0.01, "auto", 1)


def test_inputs_that_do_not_fit():
    net, (support, weights, query) = network(SPECS["three"]), inputs(2, 16, 24)
    for bad in (support[:, :1], support[:0], support[0], support[:, :, :7]):
        with pytest.raises(ValueError):
            native.prepare(np.ascontiguousarray(bad), weights)
    with pytest.raises(ValueError, match="weights"):
        native.prepare(support, weights[:1])
    with pytest.raises(ValueError, match="one size"):
        net.run([native.prepare(support, weights)], query[:, :, :8])
    with pytest.raises(ValueError, match="no support"):
        net.run([], query)
    odd, row, small = inputs(1, 10, 12)
    with pytest.raises(ValueError, match="fit the network"):
        net.run([native.prepare(odd, row)], small)
    with pytest.raises(ValueError, match="no kernels"):
        network(SPECS["three"], "mmx")


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer, shapes", [("thread", 1), ("address,undefined", 6)])
def test_under_the_sanitizers(tmp_path, sanitizer, shapes):
    """No data race and no access outside a buffer, in random networks too.

    Each file has the options that the extension gives it. Vectors that this processor lacks are emulated: their files
    are compiled without these options.
    """
    lacking = [name for name in INSTRUCTIONS if name not in native.available()]
    emulated = [f"arithmetic/kernels_{name}.cpp" for name in lacking] if ON_X86 else []
    tests = [file.relative_to(FOLDER) for file in sorted((FOLDER / "selftest").glob("*.cpp"))]
    program = compile_selftest("selftest", [*tests, *PARTS["LIBRARY"]], sanitizer, without=emulated, defines=(
        "UNIVERSEG_CHUNK_BYTES=65536L", "UNIVERSEG_TERM_BYTES=400000L",
        *(["UNIVERSEG_ALL_KERNELS"] if emulated else [])))
    networks = write_networks(tmp_path / "networks", shapes)
    done = subprocess.run([str(program), str(networks)], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[-1] == "OK", done.stdout + done.stderr
    assert set(INSTRUCTIONS if ON_X86 else ("plain",)) <= set(done.stdout.split())


@pytest.mark.skipif(not ON_X86, reason="the other processors have one set of instructions")
def test_files_with_vectors_of_their_own_have_their_own_options():
    """Their absence would leave the shipped kernels to plain instructions, under the sanitizers too."""
    own = {file for file, options in PARTS["LIBRARY"].items() if options}
    assert own == {f"arithmetic/kernels_{name}.cpp" for name in INSTRUCTIONS if name != "plain"}
