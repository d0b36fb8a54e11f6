"""The CUDA sources compile for every supported architecture, and what they link to refuses and reports without a
GPU."""

import subprocess

import pytest

from universeg_rt.errors import InputError, RunnerError
from universeg_rt.kernels.support_mean import library
from universeg_rt.kernels.support_mean.check import cases
from universeg_rt.kernels.support_mean.host import module as host


@pytest.fixture(scope="module")
def opened(cuda):
    return library.Library(cuda.library)


def test_machine_code_for_every_architecture(cuda):
    """The fat binary names each target; a missing one would be compiled at start, or not run at all."""
    assert cuda.library.stat().st_size > 100_000
    log = (cuda.library.parents[1] / "build.ninja").read_text() if (cuda.library.parents[1] /
                                                                    "build.ninja").exists() else ""
    if not log:
        pytest.skip("the build did not use ninja, whose file is read here")
    for target in ("code=sm_75", "sm_80", "sm_90"):
        assert target in log


def test_each_library_calls_its_own_functions(cuda):
    """The C library and the plugin export the same names; one must not call into the other."""
    for path in (cuda.library, *cuda.plugins):
        told = subprocess.run(["readelf", "-d", path], capture_output=True, text=True).stdout
        assert "SYMBOLIC" in told, path.name


def test_self_test_dry_run(cuda):
    """The GPU self-test with the CPU in the GPU's place, its threads in reverse order: equal bits everywhere."""
    done = subprocess.run([cuda.selftest, "--dry-run", "--quick"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    *named, last = done.stdout.splitlines()
    runs, elements, same, wrong = (int(word) for word in last.split() if word.isdigit())
    assert runs > 300 and elements == same and wrong == 0
    assert len(named) == len(set(named)) == runs and "pool float16 kernel 3 activated 0 layout 1" in done.stdout


def test_each_kernel_of_the_self_test_is_named_before_it_runs(cuda):
    """A hang or a crash is known by the last line, which is out at once."""
    with subprocess.Popen([cuda.selftest, "--dry-run"], stdout=subprocess.PIPE, text=True) as running:
        first = running.stdout.readline()
        running.kill()
    assert first.startswith("mean float32 kernel 1 activated 0 layout 0 B=1 ") and running.returncode < 0


def test_self_test_refuses_an_unknown_option_and_says_where_there_is_no_gpu(cuda):
    assert subprocess.run([cuda.selftest, "--fast"], capture_output=True).returncode == 2
    done = subprocess.run([cuda.selftest], capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""}, timeout=60)
    assert done.returncode == 3 and "cudaError" in done.stdout


def test_library_and_host_build_agree(native, opened):
    values = dict(form=1, dtype=1, kernel=0, activated=0, layout=0, negative_slope=0.01, queries=3,
                  support_queries=1, sets=2, query_sets=1, entries=16, channels=8, height=10, width=16)
    assert opened.sizes(values) == native.sizes(values)
    assert opened.plan(values, 132) == native.plan(values, 132)


def test_refused_input_never_reaches_cuda(opened):
    """InputError, not the CUDA error that this machine would give: the check comes first."""
    inputs = cases.make_inputs("pool", cases.Sizes(entries=2, channels=4, height=4, width=8), "float32")
    values = host.problem("pool", inputs["support"], inputs["query"])
    with pytest.raises(InputError, match="support is NULL"):
        opened.run(values, {})
    with pytest.raises(InputError, match=r"entries \(S\) is 0"):
        opened.check(values | {"entries": 0})


def test_a_cuda_error_is_named(opened):
    import ctypes

    try:
        if ctypes.CDLL("libcuda.so.1").cuInit(0) == 0:
            pytest.skip("this machine has a GPU; there the call would succeed")
    except OSError:
        pass
    inputs = cases.make_inputs("mean", cases.Sizes(channels=4, height=4, width=8), "float32")
    values = host.problem("mean", inputs["support"], inputs["query"])
    at, buffers = 1 << 20, {}
    for name, size in opened.sizes(values).items():
        if size:
            buffers[name] = (at, size)
            at += 1 << 20
    with pytest.raises(RunnerError, match="cuda.* failed: cudaError"):
        opened.run(values, buffers)


def test_a_caller_of_another_version_is_refused(opened):
    with pytest.raises(InputError, match="same support_mean.h"):
        problem = library.Problem(struct_size=8)
        import ctypes

        opened._call("support_mean_check", ctypes.byref(problem), None)


def test_a_missing_library_names_the_command(tmp_path):
    with pytest.raises(RunnerError, match="kernels.build --cuda"):
        library.Library(tmp_path / "libsupport_mean.so")
