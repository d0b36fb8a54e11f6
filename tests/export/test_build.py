"""From checkpoint to bundle: the gate, what is left behind when it fails, the command, the cost table."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import platform
import subprocess
import sys
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install '.[export]'")
torch = pytest.importorskip("torch", reason="torch is not installed: pip install '.[export]'")

from universeg_rt import Bundle
from universeg_rt.errors import BundleError, InputError, OutputError, ParityError
from universeg_rt.export import build, precisions
from universeg_rt.export.cli import main
from universeg_rt.export.emit import emit_static
from universeg_rt.export.folds import fold
from universeg_rt.export.folds.cost import network_cost, table, total
from universeg_rt.export.gate import parity
from universeg_rt.spec import NetworkSpec
from universeg_rt.training.network.checkpoint import save_checkpoint

from ..conftest import SMALL_GRID, SMALL_SPEC, material, quick_gate, random_weights

pytestmark = pytest.mark.torch
NATIVE = importlib.util.find_spec("universeg_rt._native") is not None


@pytest.fixture
def gate():
    with quick_gate((32, 32), (16, 24)) as patch:
        yield patch


def make(folder, spec=SMALL_SPEC, **options):
    return build.build_bundle(spec, random_weights(spec), folder, name="b", grid=SMALL_GRID, **options)


def test_the_gate_covers_what_it_must():
    assert parity.SUPPORT_SIZES == (1, 2, 7, 16, 64) and parity.MEMBERS == (1, 3)
    assert len(parity.IMAGE_SIZES) == 2 and set(parity.KINDS) == {"random", "image-like"}


@pytest.mark.slow
@pytest.mark.parametrize("spec", [SMALL_SPEC, NetworkSpec("leaky_relu", (5, 6, 4), (6, 5), "bilinear")],
                         ids=["v1", "paper"])
def test_a_small_network_passes_the_whole_gate(tmp_path, monkeypatch, spec):
    monkeypatch.setattr(parity, "IMAGE_SIZES", ((32, 32), (16, 40)))
    exported = make(tmp_path / "b", spec)
    report = exported.reports["fp32"]
    models = {"whole", "pair", "streamed"}
    if spec == SMALL_SPEC:
        models |= {"static"} | ({"native"} if NATIVE else set())
    assert {r.model for r in report.results} == models and len(report.results) == 2 * 2 * 5 * 2 * len(models)
    assert not report.failures
    assert max(r.logit_error for r in report.results) < 1e-4
    opened = Bundle.open(tmp_path / "b")
    assert opened.manifest == exported.bundle.manifest
    if spec == SMALL_SPEC:
        assert opened.model("fp32", "static").name == "static.onnx"
    else:
        with pytest.raises(BundleError,
                           match="no static model of fp32; this network has an activation in the cross conv"):
            opened.model("fp32", "static")


@pytest.mark.parametrize("damage", ["weight", "border"])
def test_over_tolerance_leaves_nothing_and_says_the_figures(tmp_path, gate, monkeypatch, damage):
    def wrong(spec, weights):
        network = fold(spec, weights)
        first = network.blocks[0]
        if damage == "weight":
            first = dataclasses.replace(first, target_weight=first.target_weight * 1.01)
        else:
            kernels = dataclasses.replace(first.border_kernels, top_left=first.border_kernels.top_left * 1.5)
            first = dataclasses.replace(first, border_kernels=kernels)
        return dataclasses.replace(network, blocks=(first, *network.blocks[1:]))

    monkeypatch.setattr(build, "fold", wrong)
    with pytest.raises(ParityError, match="over tolerance.*logit error.*pixels flipped, Dice"):
        make(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_template_that_is_not_the_network_is_over_tolerance(tmp_path, gate, monkeypatch):
    def wrong(network, *rest):
        first = network.blocks[0]
        kernels = first.query_border_kernels
        kernels = dataclasses.replace(kernels, top_left=kernels.top_left * 1.5)
        first = dataclasses.replace(first, query_border_kernels=kernels)
        return emit_static(dataclasses.replace(network, blocks=(first, *network.blocks[1:])), *rest)

    monkeypatch.setattr(precisions, "emit_static", wrong)
    with pytest.raises(ParityError, match="over tolerance.*worst: static at"):
        make(tmp_path / "b")


def test_the_gate_ends_with_the_first_input_that_is_over_tolerance(gate):
    """The smallest input comes first; the reference and the models do not run on the larger ones."""
    ran = []

    def wrong(support, weights, query):
        ran.append(support.shape)
        return np.zeros((1, len(support), 1, *query.shape[2:]), np.float32)

    reference = parity.Reference(SMALL_SPEC, random_weights(SMALL_SPEC))
    with pytest.raises(ParityError, match=r"2 of 2 comparisons .*, the other 14 were not made; worst: m"):
        parity.check_parity(SMALL_SPEC, reference.weights, {"m": wrong}, reference=reference)
    assert ran == [(1, 1, 2, 16, 24), (3, 1, 2, 16, 24)] and len(reference.known) == 1


def test_memory_is_kept_for_the_next_map_and_given_back_at_the_end():
    """Page faults of a large map that is made again and again, in a process whose heap holds nothing else."""
    pytest.importorskip("resource", reason="page faults are counted by POSIX systems only")
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc only")
    code = """
import resource
from pathlib import Path
import numpy as np
from universeg_rt.export.gate.memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(64 << 20, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

plain, before = faults(), resident()
with kept_memory(), kept_memory():
    kept, while_kept = faults(), resident()
print(plain, kept, while_kept - before, resident() - before, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plain, kept, pages_kept, pages_left, again = map(int, done.stdout.split())
    assert kept < plain / 4 and again > plain / 2
    assert pages_kept > 15_000 > 5_000 > pages_left, "pages of 4 KiB"


@pytest.mark.slow
def test_a_failed_export_keeps_the_bundle_that_was_there(tmp_path, gate):
    make(tmp_path / "b")
    before = (tmp_path / "b" / "manifest.json").read_bytes()
    with pytest.raises(ParityError):
        make(tmp_path / "b", tolerance=parity.Tolerance(logit_error=0.0))
    assert (tmp_path / "b" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_nan_is_over_tolerance():
    case = parity.Case("random", 8, 8, 1, 1)
    result = parity.CaseResult("m", case, float("nan"), 0, 64, 1.0)
    assert not result.within(parity.Tolerance())


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path, gate):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="is no bundle"):
        make(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "x"


def test_grids_that_do_not_fit(tmp_path):
    for grid in ((30, 32), (0, 0), (4, 4)):
        with pytest.raises(InputError, match="multiples of 4"):
            build.check_grid(SMALL_SPEC, grid)


@pytest.mark.slow
def test_models_are_the_same_to_the_byte_from_run_to_run(tmp_path, gate):
    one, two = make(tmp_path / "a").bundle, make(tmp_path / "b").bundle
    assert one.manifest.files == two.manifest.files


@pytest.mark.slow
def test_the_command(tmp_path, gate, capsys):
    save_checkpoint(tmp_path / "w.safetensors", SMALL_SPEC, random_weights(SMALL_SPEC), {"licence": "test licence"})
    arguments = [
        "--checkpoint",
        str(tmp_path / "w.safetensors"), "--output",
        str(tmp_path / "out"), "--grid", "32", "32"
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "largest logit error" in out and "bundle" in out
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["licence"]["weights"] == "test licence"
    assert manifest["provenance"]["checkpoint"] == "w.safetensors" and list(manifest["models"]) == ["fp32"]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    props = {p.key: p.value for p in model.metadata_props}
    assert props["universeg.weights_sha256"] == manifest["weights_sha256"]


@pytest.mark.parametrize("arguments, message", [
    ([], "give --checkpoint and --output"),
    (["--checkpoint", "absent.pt", "--output", "o"], "absent.pt does not exist"),
    (["--checkpoint", "x", "--output", "o", "--spec", "v9"], "neither one of v1, paper nor a file"),
])
def test_errors_of_the_command_are_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err


@pytest.mark.slow
def test_a_terminated_export_leaves_nothing(tmp_path):
    spec = NetworkSpec.preset("v1")  # large enough to be still at work
    save_checkpoint(tmp_path / "w.safetensors", spec, random_weights(spec))
    process = subprocess.Popen(
        [sys.executable, "-m", "universeg_rt.export.cli", "--checkpoint", str(tmp_path / "w.safetensors"),
         "--output", str(tmp_path / "out")], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert any(p.name.startswith(".out") for p in tmp_path.iterdir()), "the export has begun"
    process.terminate()
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130 and [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_explain_prints_both_variants(capsys):
    assert main(["--explain"]) == 0
    out = capsys.readouterr().out
    assert "=== v1" in out and "=== paper" in out
    taken, left = out.split("not taken, though exact")[0], out.split("not taken, though exact")[1].split("===")[0]
    assert "prepared_support: " in taken and "prepare.onnx and predict.onnx" in taken and "prepared_support" not in left
    assert "not applied to" in out and "an activation stands between the two convolutions" in out
    v1, paper = (text.split("of the static network")[1] for text in out.split("=== ")[1:])
    assert "25 instead of 585 multiplications" in v1 and "there is no constant map" not in v1
    assert "there is no constant map" in paper


def test_the_cost_table_agrees_with_the_algebra():
    """The figures of the folds' own page: c is one 3x3 convolution 64 -> 64 at 128x128."""
    c = 2 * 64 * 64 * 9 * 128**2
    spec = NetworkSpec.preset("v1")
    network = fold(spec, {k: np.zeros(s, np.float32) for k, s in spec.weight_shapes().items()})
    rows = network_cost(network)
    reference, folded = (sum(getattr(r, f"{side}_entry").flop for r in rows) / c for side in ("reference", "folded"))
    assert reference == pytest.approx(8.59, abs=0.01) and folded == pytest.approx(1.68, abs=0.01)
    assert total(rows, "reference", 64).flop == pytest.approx(667.6e9, rel=0.01)
    assert total(rows, "folded", 64).flop / total(rows, "reference", 64).flop < 0.22
    assert "S =  64" in table(network)


@pytest.mark.slow
def test_the_published_weights_export(tmp_path, gate, monkeypatch):
    """A .pt as published: a plain state dict, which needs --spec v1."""
    monkeypatch.setattr(parity, "SUPPORT_SIZES", (1,))
    archive = np.load(material("parity", "universeg_v1_parity.npz"))
    state = {
        k.removeprefix("state_dict/"): torch.from_numpy(archive[k])
        for k in archive.files if k.startswith("state_dict/")
    }
    torch.save(state, tmp_path / "w.pt")
    assert main(["--checkpoint", str(tmp_path / "w.pt"), "--output", str(tmp_path / "out")]) == 1
    assert main(["--checkpoint", str(tmp_path / "w.pt"), "--spec", "v1", "--output", str(tmp_path / "out")]) == 0
    from universeg_rt.runners import open_runner

    runner = open_runner(Bundle.open(tmp_path / "out"))
    for case in range(4):
        part = {n: archive[f"case{case}/{n}"].astype(np.float32) for n in ("query", "support_images", "support_labels")}
        support = np.concatenate([part["support_images"], part["support_labels"]], axis=2)
        weights = np.full(support.shape[:2], 1 / support.shape[1], np.float32)
        for b in range(len(support)):
            logits = runner.run(runner.prepare(support[b : b + 1], weights[b : b + 1]), part["query"][b : b + 1])
            assert np.abs(logits[0] - archive[f"case{case}/logits"][b]).max() < 1e-4
