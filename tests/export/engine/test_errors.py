"""Whatever goes wrong in building an engine is a typed error in one line, ends no process of ours, and leaves
nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")

from universeg_rt.bundle.engine import Profile
from universeg_rt.errors import BundleError, InputError
from universeg_rt.export.cli import main
from universeg_rt.export.engine.build import EngineOptions
from universeg_rt.export.engine.process import memory_needed

from .engines import bundle, fake, hide_libraries, refused, replace_model, toy_bundle  # noqa: F401  fixtures

# The library ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("builder, package", [("tensorrt", "pip install tensorrt-cu13"),
                                              ("tensorrt-rtx", "tensorrt_rtx")])
def test_a_missing_library_names_the_package(bundle, hide_libraries, builder, package):
    refused(bundle, f"{builder}: the Python package .* cannot be imported .*{package}", builder=builder)


@pytest.mark.parametrize("fault, message", [
    ("library", "not its libraries .libnvinfer.so.10: cannot open.*pip install tensorrt-cu13"),
    ("driver", "needs an NVIDIA GPU and its driver"),
    ("abort", r"crashed \(SIGABRT\) in its own process; it said last: .*std::bad_alloc.*nothing was written"),
    ("kill", r"was killed \(SIGKILL\), most likely for want of main memory"),
    ("exit", "ended with status 7 in its own process; it said last: a licence could not be found"),
    ("raise", "failed with ValueError: unexpected"),
    ("memory", r"not enough GPU memory \(17 GB were asked for\).*fewer entries.*--workspace"),
])
def test_a_library_that_fails_is_an_error_with_its_last_words(fake, bundle, fault, message):
    fake("10.14.1", fault)
    refused(bundle, message)


@pytest.mark.parametrize("text, expected", [
    ("Requested amount of GPU memory (17179869184 bytes) could not be allocated.", " (17 GB were asked for)"),
    ("Error Code 2: OutOfMemory (Requested size was 1080156676 bytes.)", " (1.1 GB were asked for)"),
    ("Skipping tactic 0 due to insufficient memory on requested size of 11580055552 detected",
     " (12 GB were asked for)"),
    ("no tactics to implement the operation within workspace limit", ""),
    ("Cuda Error in allocate: 2 (out of memory)", ""),
    ("API Usage Error: wrong dimensions 17179869184", None),
    ("", None),
])
def test_what_the_library_says_of_memory(text, expected):
    assert memory_needed(text) == expected


def test_a_plugin_library_that_is_none_or_of_another_version(fake, bundle, tmp_path):
    fake("10.14.1")
    (tmp_path / "plugin.so").write_bytes(b"no library")
    refused(bundle, "plugin.so is not a universeg_rt plugin library", plugin=tmp_path / "plugin.so")
    if sys.platform != "linux":
        return
    source = ('extern "C" { int universeg_rt_plugin_generation() { return 8; } '
              'const char* universeg_rt_plugin_headers() { return "8.6"; } }')
    (tmp_path / "p.cpp").write_text(source)
    try:
        subprocess.run(["c++", "-shared", "-fPIC", tmp_path / "p.cpp", "-o", tmp_path / "old.so"], check=True)
    except FileNotFoundError:
        pytest.skip("no C++ compiler was found")
    refused(bundle, "old.so was built against TensorRT 8.6 and TensorRT 10.14.1 runs here", plugin=tmp_path / "old.so")


# The model ------------------------------------------------------------------------------------------------------------

def test_an_onnx_file_that_is_not_ours(fake, bundle):
    fake("10.14.1")
    model = onnx.load(bundle / "model.onnx")
    del model.metadata_props[:]
    replace_model(bundle, "model.onnx", model)
    refused(bundle, "model.onnx is not the model that the manifest describes: its universeg.spec is None", BundleError)
    replace_model(bundle, "model.onnx", b"PK no model at all")
    refused(bundle, "model.onnx is no model of ours", BundleError)


def test_a_model_of_other_weights(fake, bundle):
    fake("10.14.1")
    model = onnx.load(bundle / "model.onnx")
    next(p for p in model.metadata_props if p.key == "universeg.weights_sha256").value = "0" * 64
    replace_model(bundle, "model.onnx", model)
    refused(bundle, "its universeg.weights_sha256 is '0000", BundleError)


@pytest.mark.parametrize("version, named", [("10.14.1", "node middle (Blur)"), ("8.6.1", "node number")])
def test_an_operator_that_the_parser_does_not_know_names_the_node(fake, toy_bundle, version, named):
    fake(version)
    model = onnx.load(toy_bundle / "fp16.onnx")
    model.graph.node.add(op_type="Blur", domain="elsewhere", name="middle", input=["wide"], output=["blurred"])
    model.opset_import.add(domain="elsewhere", version=1)
    replace_model(toy_bundle, "fp16.onnx", model, "fp16")
    message = refused(toy_bundle, "the parser does not take the model", precisions=("fp16",))
    assert named in message and "No importer registered" in message


def test_an_input_that_no_profile_covers(fake, toy_bundle):
    fake("10.14.1")
    model = onnx.load(toy_bundle / "fp16.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "channels"
    replace_model(toy_bundle, "fp16.onnx", model, "fp16")
    refused(toy_bundle, "input query has a dimension 'channels' that no profile covers", precisions=("fp16",))


@pytest.mark.parametrize("options, message", [
    ({"precisions": ("int8",)}, "holds no int8 models; it has fp32"),
    ({"profile": Profile(image=(64, 64))}, "the profile is for images of 64x64, the bundle's network for 32x32"),
])
def test_what_the_bundle_has_not(fake, bundle, options, message):
    fake("10.14.1")
    refused(bundle, message, InputError, **options)


def test_a_model_part_that_the_bundle_has_not(fake, toy_bundle):
    fake("10.14.1")
    refused(toy_bundle, "holds no fp16 model predict; it has whole", InputError, precisions=("fp16", ),
            models=("predict", ))


@pytest.mark.parametrize("options, message", [
    ({"builder": "trtexec"}, "accepted: tensorrt, tensorrt-rtx"),
    ({"models": ("half", )}, "accepted: whole, prepare, predict"),
    ({"hardware": "all"}, "accepted: none, ampere"),
    ({"workspace": 0}, "positive number"),
    ({"level": 6}, "0 to 5"),
    ({"capabilities": ("8.6", )}, "for tensorrt-rtx"),
    ({"builder": "tensorrt-rtx", "hardware": "same"}, "for tensorrt;"),
    ({"plugin": Path("absent.so")}, "no plugin library at absent.so; build it"),
    ({"timing_cache": Path("absent/x")}, "its folder does not exist"),
])
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        EngineOptions(**{"builder": "tensorrt", **options})


# The command ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, message", [
    (["--bundle", "{b}"], "say which with --engine"),
    (["--bundle", "absent", "--engine", "tensorrt"], "no bundle at absent"),
    (["--bundle", "shipped", "--engine", "tensorrt"], "the shipped bundle is not changed; give --output"),
    (["--bundle", "{b}", "--checkpoint", "x", "--engine", "tensorrt"], "not both"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-entries", "8:4:16"], "min (8) is above opt (4)"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-sets", "2:4:3"], "opt (4) is above max (3)"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--profile-queries", "x"], "--profile-queries x: give min:opt:max"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--workspace", "much"], "--workspace much: give a size as 4G"),
    (["--bundle", "{b}", "--engine", "tensorrt-rtx", "--compute-capability", "nine"
      ], "--compute-capability nine: give it as 8.9"),
    (["--bundle", "{b}", "--engine", "tensorrt", "--precision", "fp16"], "holds no fp16 models"),
    (["--bundle", "{b}/model.onnx", "--engine", "tensorrt"], "it is not a folder"),
])
def test_errors_of_the_command_are_one_line(bundle, capsys, arguments, message):
    assert main([a.replace("{b}", str(bundle)) for a in arguments]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
