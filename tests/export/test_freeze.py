"""`universeg-export --freeze`: the file, what is printed of it, that it needs the SDK alone, and what is refused."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from universeg_rt import Ensemble, Segmenter, SupportSet
from universeg_rt.export.cli import main
from universeg_rt.frozen_task import FrozenTask
from universeg_rt.imaging.normalisation import Percentiles, Window
from universeg_rt.spec import NetworkSpec

from ..conftest import SMALL_GRID, discs, quick_gate, random_weights
from ..universeg_rt.cli.test_commands import run
from ..universeg_rt.test_support import write_folder


@pytest.fixture
def case(tmp_path, small_bundle):
    """A support folder, and the arguments that freeze it."""
    write_folder(tmp_path / "support", *discs(5))
    return tmp_path, ["--freeze", str(tmp_path / "support"), "--bundle", str(small_bundle), "--output",
                      str(tmp_path / "task.onnx")]


def printed(capsys) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("kind", ["static", "exact"])
def test_the_file_is_that_of_the_sdk(case, small_bundle, kind, capsys):
    folder, arguments = case
    options = ["--kind", kind, "--members", "2", "--support-size", "3", "--seed", "4"]
    assert main([*arguments, *options]) == 0
    said, model = printed(capsys), (folder / "task.onnx").read_bytes()
    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"), Ensemble(2, 3, seed=4))
    task.freeze(kind=kind, seed=4).save(folder / "sdk.onnx")
    assert model == (folder / "sdk.onnx").read_bytes()
    frozen = FrozenTask.open(folder / "task.onnx")
    assert (said["kind"], said["reason"], said["price"]) == (kind, "asked for", str(frozen.price))
    assert ("none of its images" in said["holds"]) == (kind == "static")
    assert said["marked"].startswith(f"from a probability of {frozen.record.threshold:g} on")
    assert said["sha256"] == hashlib.sha256(model).hexdigest() == frozen.sha256
    assert f"({len(model):,} bytes)" in said["file"] and str(folder / "task.onnx") in said["file"]


@pytest.mark.parametrize("options, aspect, normalise", [
    (["--aspect", "pad", "--window", "20", "200"], "pad", Window(20.0, 200.0)),
    (["--percentiles", "1", "99"], "stretch", Percentiles(1.0, 99.0))])
def test_images_get_to_the_network_as_the_options_say(case, small_bundle, options, aspect, normalise):
    folder, arguments = case
    assert main([*arguments, *options, "--kind", "exact"]) == 0
    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"), aspect=aspect, normalise=normalise)
    assert (folder / "task.onnx").read_bytes() == task.freeze(kind="exact").model


def test_notes_on_the_support_are_printed_in_the_words_of_the_command(case, capsys):
    folder, arguments = case
    images, labels = discs(4, 40, 40)
    images //= 8
    images[:, 0, 0] = 255
    write_folder(folder / "hot", images, labels)
    assert main([*arguments, "--freeze", str(folder / "hot"), "--kind", "exact"]) == 0
    assert "clip them with --percentiles" in capsys.readouterr().err


def test_auto_chooses_by_what_may_be_lost(case, capsys):
    _, arguments = case
    kinds = []
    for loss in ("1", "0"):
        assert main([*arguments, "--max-loss", loss]) == 0
        kinds.append((said := printed(capsys))["kind"])
        assert f"{loss} may be lost" in said["reason"] and "left out" in said["price"]
    assert kinds == ["static", "exact"]


def test_labels_are_no_proxies(case, capsys):
    folder, arguments = case
    write_folder(folder / "others", *discs(3, seed=9))
    said = []
    for proxies in ("others", "others/images"):
        assert main([*arguments, "--kind", "static", "--proxies", str(folder / proxies)]) == 0
        said.append(printed(capsys))
    assert said[0] == said[1] and said[0]["proxies"] == "3 images given"


def test_a_picture_that_is_no_proxy_is_named(case, capsys):
    folder, arguments = case
    write_folder(folder / "others", [*discs(2)[0], np.full((40, 40), 7)], np.ones((3, 40, 40)))
    assert main([*arguments, "--kind", "static", "--proxies", str(folder / "others")]) == 1
    assert "--proxies: " in (said := capsys.readouterr().err) and "images/case2.png: image is constant (7)" in said


@pytest.mark.parametrize("more", [["--float-constants"], ["--proxies"], []], ids=str)
def test_what_auto_drops_is_said(case, capsys, more):
    folder, arguments = case
    write_folder(folder / "others", np.random.default_rng(0).integers(0, 255, (3, 40, 40)), np.ones((3, 40, 40)))
    assert main([*arguments, "--max-loss", "0", *more, *([str(folder / "others")] if "--proxies" in more else [])]) == 0
    note = f"note: {''.join(more)}: not in the file, since auto takes exact"
    assert (note in capsys.readouterr().err) == bool(more)


def test_a_cure_is_in_the_words_of_the_command(case, tmp_path, capsys):
    _, arguments = case
    write_folder(tmp_path / "one", *discs(1))
    assert main([*arguments, "--freeze", str(tmp_path / "one"), "--kind", "static"]) == 1
    assert "or take --kind exact" in capsys.readouterr().err
    assert main([*arguments, "--support-size", "90"]) == 1
    assert "draw with --replacement, or at most" in capsys.readouterr().err
    assert main([*arguments, "--support-size", "90", "--replacement", "--kind", "exact"]) == 0


def test_it_is_said_what_became_of_a_choice_of_the_threshold(case, tmp_path, capsys, monkeypatch):
    _, arguments = case
    write_folder(tmp_path / "six", *discs(6))
    chosen = [*arguments, "--kind", "static", "--threshold", "choose", "--freeze", str(tmp_path / "six")]
    assert main(chosen) == 0
    marked = printed(capsys)["marked"]
    assert marked.endswith(" on, chosen") and "0.5 on" not in marked
    monkeypatch.setattr("universeg_rt.answers.thresholds.LEAST_GAIN", 0.9)
    assert main(chosen) == 0
    assert printed(capsys)["marked"].endswith("0.5 on, not chosen: no entries were left out, they are too few, or no "
                                              "other gains enough on them")


@pytest.mark.parametrize("kind", ["static", "exact", "auto"])
def test_a_threshold_is_that_of_the_file(case, small_bundle, kind, capsys):
    folder, arguments = case
    more = ["--max-loss", "0"] if kind == "auto" else []
    assert main([*arguments, "--kind", kind, "--threshold", "0.2", *more]) == 0
    assert printed(capsys)["marked"] == "from a probability of 0.2 on"
    found = FrozenTask.open(folder / "task.onnx").predict(discs(1, seed=7)[0][0])
    assert found.threshold == 0.2 and np.array_equal(found.mask, found.probability >= 0.2)


def test_proxies_of_a_folder_and_constants_in_float(case, small_bundle, capsys):
    folder, arguments = case
    images = discs(3, 50, 44, seed=8)[0]
    write_folder(folder / "proxies", images, np.ones_like(images, bool))
    proxies = ["--kind", "static", "--proxies", str(folder / "proxies" / "images")]
    assert main([*arguments, *proxies]) == 0
    half = (folder / "task.onnx").read_bytes()
    assert main([*arguments, *proxies, "--float-constants"]) == 0
    assert len((folder / "task.onnx").read_bytes()) > len(half)
    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"))
    assert FrozenTask.open(folder / "task.onnx").sha256 == task.freeze(images, kind="static", half=False).sha256
    assert FrozenTask.open(folder / "task.onnx").record.proxies == "3 images given"


def test_it_needs_neither_torch_nor_onnx(tmp_path):
    """With the shipped bundle, which is the default."""
    np.savez(tmp_path / "support.npz", **dict(zip(("images", "labels"), discs(3, 64, 64))))
    done = run("export", "--freeze", str(tmp_path / "support.npz"), "--output", str(tmp_path / "task.onnx"), "--kind",
               "exact", packages=("torch", "onnx"))
    assert done.returncode == 0, done.stderr
    assert FrozenTask.open(tmp_path / "task.onnx").record.bundle == "universeg_rt_v1"


@pytest.mark.parametrize("options, message", [
    (["--checkpoint", "x.pt"], "--checkpoint: not for freezing a task"),
    (["--engine", "tensorrt", "--explain"], "--engine, --explain: not for freezing a task"),
    (["--grid", "64", "64"], "--grid: not for freezing a task"),
    (["--max-loss", "2"], "max_loss is 2.0"),
    (["--threshold", "0"], "threshold is 0.0"),
    (["--kind", "exact", "--float-constants"], "--float-constants: only for static files"),
    (["--kind", "static", "--max-loss", "0.1"], "--max-loss: only for --kind auto, and it is static"),
    (["--kind", "exact", "--threshold", "choose"], "--threshold choose: --kind exact leaves no entries out"),
    (["--seed", "-1"], "seed is -1"),
    (["--members", "0"], "members is 0"),
    (["--support-size", "9"], "the support set has 5 entries"),
    (["--proxies", "absent"], "absent is not a folder"),
    (["--freeze", "absent.npz"], "absent.npz does not exist"),
    (["--bundle", "absent"], "no bundle at absent"),
    (["--window", "5", "5"], "window"),
    (["--output", "absent/task.onnx"], "there is no folder absent"),
])
def test_bad_options_are_one_line_and_leave_nothing(case, options, message, capsys):
    folder, arguments = case
    assert main([*arguments, *options]) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
    assert [path.name for path in folder.iterdir()] == ["support"]


def test_bad_input_keeps_the_file_that_is_there(case, capsys):
    """Labels that mark nothing, proxies that are no images, an output that is a folder."""
    folder, arguments = case
    (folder / "task.onnx").write_text("an earlier file")
    images, labels = discs(3)
    write_folder(folder / "empty", images, np.zeros_like(labels))
    (folder / "none").mkdir()
    (folder / "none" / "notes.txt").write_text("no image")
    for options, message in ((["--freeze", str(folder / "empty")], "empty"),
                             (["--proxies", str(folder / "none")], "holds no images")):
        assert main([*arguments, *options]) == 1
        assert message in capsys.readouterr().err
    assert main([*arguments[:-1], str(folder / "none"), "--kind", "exact"]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert main(arguments[:-2]) == 1
    assert "give --output" in capsys.readouterr().err
    assert (folder / "task.onnx").read_text() == "an earlier file"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("option", ["--kind=exact", "--proxies=folder", "--max-loss=0.5", "--threshold=0.3",
                                    "--members=2", "--support-size=3", "--seed=1", "--float-constants",
                                    "--include-preprocessing", "--image-type=uint8"])
def test_options_of_freezing_need_freeze(option, capsys):
    assert main(["--explain", option]) == 1
    assert f"{option.split('=')[0]}: only for freezing a task" in capsys.readouterr().err


def test_a_network_with_an_activation_in_the_cross_convolution_is_frozen_as_exact(case, tmp_path_factory, capsys):
    pytest.importorskip("onnx", reason="exporting needs onnx: pip install '.[export]'")
    pytest.importorskip("torch", reason="the parity gate needs torch: pip install '.[export]'")
    from universeg_rt.export.build import build_bundle

    folder, arguments = case
    spec, bundle = NetworkSpec("leaky_relu", (5, 4), (6,), "bilinear"), tmp_path_factory.mktemp("paper") / "bundle"
    with quick_gate():
        build_bundle(spec, random_weights(spec), bundle, name="paper", grid=SMALL_GRID, provenance={}, licence={})
    arguments = [*arguments, "--bundle", str(bundle)]
    assert main([*arguments, "--kind", "static"]) == 1
    assert "an activation in the cross convolution" in capsys.readouterr().err and not (folder / "task.onnx").exists()
    assert main(arguments) == 0
    said = printed(capsys)
    assert said["kind"] == "exact" and "an activation in the cross convolution" in said["reason"]
    image = discs(1, 50, 44, seed=3)[0][0]
    task = Segmenter.open(bundle).prepare(SupportSet.load(folder / "support"))
    difference = FrozenTask.open(folder / "task.onnx").predict(image).probability - task.predict(image).probability
    assert np.abs(difference).max() < 1e-4


def test_labelled_volumes_are_a_support_too(case, small_bundle, capsys):
    """One label of theirs, which the file knows; fewer slices than asked for are told."""
    pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")
    from universeg_rt.supports.volumes import SliceChoice, support_of_volumes, volume_pairs

    from ..universeg_rt.cli.test_volumes import head, write

    folder, arguments = case
    for name in ("p0", "p1"):
        for part, values in zip(("images", "labels"), head(int(name[1]))):
            write(folder / "volumes" / part / f"{name}.nii.gz", values)
    frozen = [*arguments, "--freeze", str(folder / "volumes"), "--axis", "axial", "--kind", "static"]
    assert main([*frozen, "--label", "5", "--slices", "99"]) == 0
    assert "note: --slices 99: the volumes have" in capsys.readouterr().out
    support = support_of_volumes(volume_pairs(folder / "volumes"), 5, SliceChoice("axial", 99))
    found = FrozenTask.open(folder / "task.onnx")
    assert found.record.label == (5, "label 5") and found.record.support_sha256 == support.sha256
    assert found.looks == support.looks and found.looks.of_volumes
    for options, message in (([], "labels hold several values, 2 (label 2), 5 (label 5)"),
                             (["--label", "5", "--by", "similar"], "--by similar: to what?")):
        assert main([*frozen, *options]) == 1
        assert message in capsys.readouterr().err
