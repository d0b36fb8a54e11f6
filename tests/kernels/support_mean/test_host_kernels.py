"""The kernels' own code on the CPU against the reference: every index, border and shape, every access checked."""

import mmap
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from universeg_rt.kernels.support_mean.check import cases
from universeg_rt.kernels.support_mean.check.cases import Sizes
from universeg_rt.kernels.support_mean.host import module as host
from universeg_rt.kernels.support_mean.reference import DTYPES

QUICK = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
ORDERS = ("forward", "reverse", "shuffled")
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


@st.composite
def problems(draw, form):
    """(sizes, activated): small maps of any size, often multiples of the vector widths, S up to 9 or 257."""
    queries, sets = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    least = 1 if form == "mean" else 2
    size = st.one_of(st.integers(least, 11), st.sampled_from([4, 8, 16, 24]))
    sizes = Sizes(
        queries=queries,
        support_queries=1 if form == "conv_pool" else draw(st.sampled_from([1, queries])),
        sets=sets,
        query_sets=draw(st.sampled_from([1, sets])),
        entries=draw(st.one_of(st.integers(1, 9), st.just(17))),
        channels=draw(st.integers(1, 4 if form == "conv_pool" else 10)),
        height=draw(size),
        width=draw(size),
    )
    return sizes, form != "conv_pool" and draw(st.booleans())


def types_of(form, kernel):
    """The tensor-core kernel has no float32."""
    return ("float16", "bfloat16") if (form, kernel) == ("conv_pool", 3) else ("float32", "float16", "bfloat16")


def run_and_compare(native, form, sizes, dtype, kernel, activated, order="forward", multiprocessors=132, seed=0,
                    layout="chw"):
    """Runs one kernel; None where it does not serve the shape, which the message must say."""
    inputs = cases.make_inputs(form, sizes, dtype, seed)
    try:
        outputs, launch = host.run(form, **cases.laid_out(inputs, layout), kernel=kernel, activated=activated,
                                   order=order, multiprocessors=multiprocessors, layout=layout, native=native)
    except native.Refused as refusal:
        assert str(refusal).startswith("unsupported") and "use kernel 0" in str(refusal)
        return None
    outputs = cases.channels_first(outputs, layout)
    errors = cases.worst_errors(outputs, cases.expected(form, inputs))
    assert max(errors.values()) <= 1, f"{form} {dtype} kernel {kernel} {sizes}: errors in units of the bound {errors}"
    return outputs, launch


@pytest.mark.parametrize("form", host.FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@QUICK
@given(data=st.data())
def test_every_kernel_equals_the_reference(native, form, dtype, data):
    sizes, activated = data.draw(problems(form))  # the convolution's tiles have their own test below
    multiprocessors, order = data.draw(st.sampled_from([1, 8, 132])), data.draw(st.sampled_from(ORDERS))
    layout = "chw" if form == "conv_pool" else data.draw(st.sampled_from(host.LAYOUTS))
    if layout == "hwc" and data.draw(st.booleans()):  # else few numbers of channels are a multiple of a vector's
        sizes = replace(sizes, channels=8)
    served = [kernel for kernel in (0, *host.KERNELS[form])
              if run_and_compare(native, form, sizes, dtype, kernel, activated, order, multiprocessors,
                                 layout=layout) is not None]
    assert {0, 1} <= set(served)  # these serve every shape


@pytest.mark.parametrize("form", host.FORMS)
@pytest.mark.parametrize("entries", [1, 2, 257])
def test_few_and_many_entries(native, form, entries):
    sizes = Sizes(queries=3, entries=entries, channels=2, height=6, width=8)
    for kernel in host.KERNELS[form]:
        assert run_and_compare(native, form, sizes, types_of(form, kernel)[0], kernel, False) is not None


@pytest.mark.parametrize("form, dtype, kernel, vector, group", [
    ("mean", "float32", 2, 4, 1),
    ("mean", "float32", 3, 4, 1),
    ("mean", "float32", 4, 4, 4),
    ("mean", "float32", 5, 2, 1),
    ("mean", "float16", 3, 8, 1),
    ("mean", "float16", 5, 4, 1),
    ("pool", "float32", 4, 4, 2),
    ("pool", "bfloat16", 3, 8, 1),
])
def test_kernels_are_what_they_say(native, form, dtype, kernel, vector, group):
    sizes = Sizes(queries=5, sets=2, entries=20, channels=4, height=6, width=16)
    _, launch = run_and_compare(native, form, sizes, dtype, kernel, False)
    assert (launch["kernel"], launch["vector"], launch["group"]) == (kernel, vector, group)
    assert launch["slices"] == (1 if kernel == 2 else 8)  # a small map: the support is split


@pytest.mark.parametrize("height, width", [(16, 32), (17, 33), (15, 31), (2, 2), (2, 65), (35, 3), (3, 17)])
def test_convolution_borders_and_tiles(native, height, width):
    """Maps of one tile, one more, one less, and several: each border pixel belongs to some tile's edge."""
    for channels in (1, 8, 9):
        sizes = Sizes(queries=2, entries=3, channels=channels, height=height, width=width)
        for kernel in host.KERNELS["conv_pool"]:
            for dtype in types_of("conv_pool", kernel)[:2]:
                assert run_and_compare(native, "conv_pool", sizes, dtype, kernel, False, "shuffled")


@pytest.mark.parametrize("form", ["mean", "pool"])
@pytest.mark.parametrize("activated", [False, True])
def test_channels_last_give_the_same_bits(native, form, activated):
    """Odd sides too; with the slices of one layout in the other the sums are added in the same order."""
    for height, width in ((6, 8), (5, 8), (7, 16)):
        sizes = Sizes(queries=3, sets=2, entries=11, channels=16, height=height, width=width)
        for dtype in DTYPES:
            for kernel in host.KERNELS[form][: 3 if activated else 5]:
                found = [run_and_compare(native, form, sizes, dtype, kernel, activated, layout=layout)
                         for layout in host.LAYOUTS]
                assert found[0][1]["slices"] == found[1][1]["slices"]
                for name, array in found[0][0].items():
                    assert array.tobytes() == np.ascontiguousarray(found[1][0][name]).tobytes(), (dtype, kernel, name)


def test_channels_last_on_odd_widths_and_their_vectors(native):
    for width in (1, 3, 9):
        for kernel in host.KERNELS["pool"]:
            sizes = Sizes(queries=2, entries=5, channels=8, height=3, width=max(2, width))
            assert run_and_compare(native, "pool", sizes, "float16", kernel, False, layout="hwc") is not None
    with pytest.raises(native.Refused, match="12 channels is no multiple"):
        inputs = cases.laid_out(cases.make_inputs("pool", Sizes(channels=12, height=4, width=8), "float16"), "hwc")
        host.run("pool", **inputs, kernel=3, layout="hwc", native=native)
    with pytest.raises(native.Refused, match="convolution writes maps with channels first"):
        inputs = cases.make_inputs("conv_pool", Sizes(channels=8, height=4, width=8), "float16")
        native.check(host.problem("conv_pool", inputs["support"], inputs["query"]) | {"layout": 1})


@pytest.mark.parametrize("form", host.FORMS)
def test_the_order_of_threads_does_not_change_a_bit(native, form):
    sizes = Sizes(queries=3, entries=13, channels=8, height=10, width=16)
    for kernel in host.KERNELS[form]:
        dtype = types_of(form, kernel)[0]
        results = [run_and_compare(native, form, sizes, dtype, kernel, False, order)[0] for order in ORDERS]
        for other in results[1:]:
            for name, array in results[0].items():
                assert array.tobytes() == other[name].tobytes(), (kernel, name)


def test_padding_entries_do_not_reach_the_mean_but_are_written(native):
    inputs = cases.make_inputs("pool", Sizes(entries=4, channels=2, height=4, width=8), "float32")
    inputs["weights"][...] = [[0.5, 0.5, 0, 0]]
    first, _ = host.run("pool", **inputs, activated=True, native=native)
    inputs["support"][:, :, 2:] = 1000.0
    second, _ = host.run("pool", **inputs, activated=True, native=native)
    np.testing.assert_array_equal(first["mean"], second["mean"])
    np.testing.assert_array_equal(first["pooled_mean"], second["pooled_mean"])
    assert (second["activated"][:, :, 2:] > 900).all() and (second["pooled"][:, :, 2:] > 900).all()


@pytest.mark.parametrize("form", host.FORMS)
def test_nan_and_infinity_spread_as_in_the_reference(native, form):
    for kernel in host.KERNELS[form]:
        inputs = cases.make_inputs(form, Sizes(entries=3, channels=2, height=6, width=8), types_of(form, kernel)[0])
        inputs["weights"][...] = 1 / 3
        # On tensor cores a tap's low part may be 0, and infinity times that is NaN: README.md says so.
        inputs["support"].reshape(-1)[[5, 40]] = [np.nan, np.nan if (form, kernel) == ("conv_pool", 3) else np.inf]
        with np.errstate(invalid="ignore"):
            wanted = cases.expected(form, inputs)
        outputs, _ = host.run(form, **inputs, kernel=kernel, native=native)
        for name, array in outputs.items():
            np.testing.assert_array_equal(np.isnan(array), np.isnan(wanted[name][0]), err_msg=f"{kernel} {name}")


def test_the_audit_finds_every_kind_of_wrong_access(native):
    """The checker itself, on wrong accesses made on purpose."""
    found = native.audit_findings()
    assert found.pop("nothing wrong") == ""
    for misdeed, said in {
            "past the end": "outside every buffer", "half outside": "outside", "before the start": "outside",
            "misaligned": "not aligned", "written twice": "written twice", "output read": "was read",
            "input written": "was written", "left unwritten": "byte 4 of output was never"
    }.items():
        assert said in found[misdeed], misdeed


def test_planned_launches_fill_the_device_or_split_the_support(native):
    inputs = dict(support_queries=1, queries=1, sets=1, query_sets=1, activated=0, layout=0, negative_slope=0.01,
                  kernel=0)
    large = inputs | dict(form=1, dtype=0, entries=64, channels=64, height=128, width=128)
    launch = native.plan(large, multiprocessors=132)
    assert launch["kernel"] == 3 and launch["slices"] == 2 and launch["blocks"] == 1024
    # Of 16 bits and channels first the unsplit kernel where it fills the device, as measured on one; else the narrower
    # vectors, at twice the occupancy of the wider ones.
    half = native.plan(large | dict(dtype=1), multiprocessors=132)
    assert half["kernel"] == 2 and half["slices"] == 1 and half["blocks"] == 256
    small = native.plan(large | dict(dtype=1, height=64, width=64), multiprocessors=132)
    assert small["kernel"] == 5 and small["slices"] == 8 and small["blocks"] == 1024
    assert native.plan(large | dict(dtype=1, height=64, width=64, queries=4, support_queries=4),
                       multiprocessors=132)["kernel"] == 2
    wide = native.plan(large | dict(dtype=1, kernel=3), multiprocessors=132)
    assert wide["slices"] == 4 and wide["blocks"] == 1024
    last = native.plan(large | dict(dtype=1, layout=1), multiprocessors=132)
    assert last["kernel"] == 5 and last["vector"] == 4 and last["blocks"] * last["threads_x"] == 64 * 64 * 64 // 4
    assert native.plan(large | dict(queries=8, support_queries=8), multiprocessors=132)["slices"] == 1
    assert native.plan(large | dict(queries=8), multiprocessors=132)["kernel"] == 4
    assert native.plan(large | dict(entries=2), multiprocessors=132)["slices"] == 2


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_the_last_block_of_more_than_2_to_the_31_elements(native, kernel):
    """A support term of 4.3 GB, of which only the pages that one block reads ever exist."""
    entries, plane = 2049, 64 * 128 * 128
    try:
        memory = mmap.mmap(-1, entries * plane * 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    except OSError as error:
        pytest.skip(f"this machine grants no 4.3 GB of address space: {error}")
    support = np.frombuffer(memory, np.float16).reshape(1, 1, entries, 64, 128, 128)
    rng = np.random.default_rng(1)
    end = rng.standard_normal(4096).astype(np.float16)
    support[0, 0, -1].reshape(-1)[-4096:] = end  # zero elsewhere
    query, mean = host.aligned((1, 1, 1, 64, 128, 128), np.float16), host.aligned((1, 1, 64, 128, 128), np.float16)
    weights = host.aligned((1, entries), np.float32)
    query[...] = rng.standard_normal(query.shape)
    weights[...] = 0.5 / (entries - 1)
    weights[0, -1] = 0.5  # so that the last entry, beyond the 31 bits, is half of the result
    values = host.problem("mean", support, query, kernel=kernel)
    assert support.size > 2**31
    arrays = {"support": support, "query": query, "weights": weights, "mean": mean}
    last = native.plan(values)["blocks"]
    native.run(values, {name: (a.ctypes.data, a.nbytes)
                        for name, a in arrays.items()}, first_block=last - 1, last_block=last)
    found = mean.reshape(-1).astype(np.float64)
    written = ~np.isnan(found)
    assert written[-1] and 0 < written.sum() <= 4096

    def leaky(x):
        return np.where(x > 0, x, np.float32(0.01) * x)

    tail = query.reshape(-1)[written].astype(np.float64)
    wanted = 0.5 * leaky(tail) + 0.5 * leaky(tail + end[-written.sum() :].astype(np.float64))
    np.testing.assert_allclose(found[written], wanted, rtol=2**-10, atol=2e-4)


def test_offsets_beyond_32_bits(native):
    """Index arithmetic at sizes that no test can hold in memory, against Python's integers."""
    sizes = dict(queries=9, support_queries=9, sets=5, query_sets=5, entries=256, channels=64, height=513, width=511)
    values = sizes | dict(form=1, dtype=1, kernel=0, activated=0, layout=0, negative_slope=0.01)
    b, k, s, plane = 8, 4, 255, 64 * 513 * 511
    found = native.offsets(values, b, k, s)
    assert found == {
        "support": ((b * 5 + k) * 256 + s) * plane, "query": (b * 5 + k) * plane, "mean": (b * 5 + k) * plane,
        "activated": ((b * 5 + k) * 256 + s) * plane, "pooled": ((b * 5 + k) * 256 + s) * 64 * 256 * 255,
    }
    assert found["support"] > 2**37
    shared = native.offsets(values | dict(support_queries=1, query_sets=1), b, k, s)
    assert shared["support"] == (k * 256 + s) * plane and shared["query"] == b * plane
