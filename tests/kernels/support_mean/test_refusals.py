"""Bad input is refused with a message that names it, before anything runs: the C interface's own check."""

import pytest

GOOD = dict(form=1, dtype=0, kernel=0, activated=0, layout=0, negative_slope=0.01, queries=2, support_queries=1, sets=3,
            query_sets=1, entries=4, channels=8, height=6, width=8)
CONV = GOOD | dict(form=2)

BAD_PROBLEMS = {
    "form": (GOOD | dict(form=3), "invalid", "form is 3"),
    "negative form": (GOOD | dict(form=-1), "invalid", "form is -1"),
    "type": (GOOD | dict(dtype=3), "unsupported", "dtype is 3"),
    "slope zero": (GOOD | dict(negative_slope=0.0), "invalid", "negative_slope"),
    "slope negative": (GOOD | dict(negative_slope=-0.01), "invalid", "negative_slope"),
    "slope above one": (GOOD | dict(negative_slope=1.01), "invalid", "negative_slope"),
    "slope NaN": (GOOD | dict(negative_slope=float("nan")), "invalid", "negative_slope"),
    "S = 0": (GOOD | dict(entries=0), "invalid", r"entries \(S\) is 0"),
    "negative size": (GOOD | dict(channels=-8), "invalid", r"channels \(C\) is -8"),
    "size beyond 32 bits": (GOOD | dict(width=2**31), "invalid", r"width \(W\)"),
    "support queries": (GOOD | dict(support_queries=3), "invalid", "support_term has 3 queries"),
    "query sets": (GOOD | dict(query_sets=2), "invalid", "query_term has 2 sets"),
    "nothing to pool": (GOOD | dict(height=1), "invalid", "no 2x2 square"),
    "raw support per query": (CONV | dict(support_queries=2), "invalid", "raw support"),
    "activated flag": (GOOD | dict(activated=2), "invalid", "activated is 2"),
    "activated of the convolution": (CONV | dict(activated=1), "unsupported", "does not write"),
    "kernel number": (GOOD | dict(kernel=6), "invalid", "kernel is 6"),
    "kernel number of the convolution": (CONV | dict(kernel=5), "invalid", "kernels 1 to"),
    "float32 on tensor cores": (CONV | dict(kernel=3), "unsupported", "kernel 3 uses tensor cores"),
    "vectors on an odd width": (GOOD | dict(kernel=3, width=7), "unsupported", "reads 4 elements at once"),
    "kernel 4 on own support": (GOOD | dict(kernel=4, support_queries=2), "unsupported", "kernel 4 shares"),
    "kernel 5 with activated": (GOOD | dict(kernel=5, activated=1), "unsupported", "does not write activated"),
    "more bytes than any device": (GOOD | dict(queries=2**20, sets=2**20, query_sets=2**20, entries=2**20),
                                   "unsupported", "2\\^56 bytes"),
    "more blocks than a grid": (GOOD | dict(form=0, kernel=1, queries=2**19, sets=2**7, height=2**10, width=2**10),
                                "unsupported", "blocks"),
}


@pytest.mark.parametrize("problem, status, said", BAD_PROBLEMS.values(), ids=BAD_PROBLEMS)
def test_bad_problems(native, problem, status, said):
    with pytest.raises(native.Refused, match=f"^{status}: support_mean: .*{said}"):
        native.check(problem)


def test_good_problems_pass(native):
    for problem in (GOOD, CONV, GOOD | dict(form=0, height=1, width=1)):
        native.check(problem)


def laid_out(native, problem, base=1 << 20):
    """Buffers that meet the contract, one after another, as (address, bytes); nothing is read from them."""
    out, at = {}, base
    for name, size in native.sizes(problem).items():
        if size:
            out[name] = (at, size)
            at += (size + 15) // 16 * 16
    return out


def test_buffers_side_by_side_pass(native):
    for problem in (GOOD, CONV, GOOD | dict(activated=1)):
        native.check(problem, laid_out(native, problem))


@pytest.mark.parametrize("name",
                         ["support", "query", "weights", "convolution", "border", "mean", "pooled_mean", "pooled"])
def test_each_buffer_is_checked(native, name):
    good = laid_out(native, CONV)
    address, size = good[name]
    with pytest.raises(native.Refused, match=f"{name} is NULL"):
        native.check(CONV, good | {name: (0, size)})
    with pytest.raises(native.Refused, match=f"{name} has {size - 1} bytes; the shapes need {size}"):
        native.check(CONV, good | {name: (address, size - 1)})
    for offset in (1, 2, 4, 8):
        with pytest.raises(native.Refused, match=f"{name} is misaligned: its address is {offset} bytes past"):
            native.check(CONV, good | {name: (address + offset + (1 << 30), size)})


@pytest.mark.parametrize("output", ["mean", "pooled_mean", "pooled"])
@pytest.mark.parametrize("other", ["support", "query", "weights", "mean", "pooled_mean", "pooled"])
def test_outputs_overlap_nothing(native, output, other):
    if output == other:
        return
    good = laid_out(native, GOOD)
    address, size = good[other]
    last_start = (address + size - 1) // 16 * 16
    for at in (address, last_start, max(16, address - (good[output][1] - 1) // 16 * 16)):
        with pytest.raises(native.Refused, match="overlaps"):
            native.check(GOOD, good | {output: (at, good[output][1])})


def test_inputs_may_overlap_and_unwanted_buffers_may_not_be_given(native):
    good = laid_out(native, GOOD)
    native.check(GOOD, good | {"query": (good["support"][0], good["query"][1])})
    with pytest.raises(native.Refused, match="border is given"):
        native.check(GOOD, good | {"border": (16, 1000)})
    with pytest.raises(native.Refused, match="activated is given"):
        native.check(GOOD, good | {"activated": (1 << 40, 1 << 30)})


def test_no_kernel_runs_on_refused_input(native):
    with pytest.raises(native.Refused):
        native.run(GOOD, {})
