"""`universeg-segment` on real files: results, report, and what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from universeg_rt import Segmenter, SupportSet
from universeg_rt.cli.segment import main
from universeg_rt.imaging.files import read_image
from universeg_rt.imaging.metrics import dice
from universeg_rt.imaging.overlays import zoom_of

from ...conftest import discs
from ..test_support import write_folder


@pytest.fixture
def case(tmp_path, small_bundle):
    """A support folder, queries with their truth, and the arguments for them."""
    write_folder(tmp_path / "support", *discs(5))
    images, labels = discs(3, 50, 44, seed=8)
    write_folder(tmp_path / "queries", images, labels)
    arguments = ["--bundle", str(small_bundle), "--support", str(tmp_path / "support"),
                 "--input", str(tmp_path / "queries" / "images"), "--output", str(tmp_path / "out")]
    return tmp_path, images, labels, arguments


def test_masks_are_those_of_the_sdk(case, small_bundle, capsys):
    folder, images, labels, arguments = case
    options = [
        "--overlays", "--probabilities", "--truth",
        str(folder / "queries" / "labels"), "--members", "2", "--support-size", "3"
    ]
    assert main(arguments + options) == 0
    from universeg_rt import Ensemble

    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"), Ensemble(2, 3))
    report = json.loads((folder / "out" / "report.json").read_text())
    for i, row in enumerate(report["images"]):
        prediction = task.predict(images[i])
        mask = np.array(Image.open(folder / "out" / row["mask"]))
        assert set(np.unique(mask)) <= {0, 255} and np.array_equal(mask > 0, prediction.mask)
        assert np.array_equal(np.load(folder / "out" / row["probability"]), prediction.probability)
        assert np.load(folder / "out" / row["spread"]).shape == images[i].shape
        width, height = Image.open(folder / "out" / row["overlay"]).size
        assert width == images[i].shape[1] * zoom_of(images[i].shape) and height > images[i].shape[0]
        assert row["dice"] == dice(prediction.mask, labels[i])
        assert row["seconds"]["network"] > 0
    assert report["mean_dice"] == np.mean([row["dice"] for row in report["images"]])
    assert report["bundle"]["sha256"] == Segmenter.open(small_bundle).bundle.sha256
    assert report["bundle"]["licence"] == {"weights": "none"}
    assert report["support"] == {"entries": 5, "sha256": SupportSet.load(folder / "support").sha256}
    assert report["ensemble"] == {"members": 2, "support_size": 3, "replacement": False, "seed": 0,
                                  "policy": "random"}
    assert {"universeg_rt", "onnxruntime", "numpy"} <= set(report["versions"])
    assert "3 of 3 images segmented" in capsys.readouterr().out
    assert not [p for p in (folder / "out").rglob("*") if p.name.startswith(".")]


def test_one_broken_or_blank_query_does_not_stop_the_others(case, capsys):
    folder, _, _, arguments = case
    (folder / "queries" / "images" / "case1.png").write_bytes(b"\x89PNG broken")
    Image.fromarray(np.full((20, 20), 9, np.uint8)).save(folder / "queries" / "images" / "flat.png")
    assert main(arguments) == 1
    assert sorted(p.name for p in (folder / "out" / "masks").iterdir()) == [
        "case0.png", "case2.png", "flat.png"
    ]
    rows = {r["input"].rsplit("/", 1)[1]: r for r in json.loads((folder / "out" / "report.json").read_text())["images"]}
    assert "cannot be read" in rows["case1.png"]["error"]
    assert rows["flat.png"]["foreground_pixels"] == 0 and "constant" in rows["flat.png"]["notes"][0]
    err = capsys.readouterr().err
    assert "skipped" in err and "case1.png" in err and "Traceback" not in err


def test_a_region_outside_an_image_is_told_with_its_path_once(case, capsys):
    folder, _, _, arguments = case
    assert main([*arguments, "--region", "0", "0", "999", "9"]) == 1
    said = capsys.readouterr().err
    name = folder / "queries" / "images" / "case0.png"
    assert f"skipped {name}: region is (0, 0, 999, 9); accepted" in said and said.count(str(name)) == 1


@pytest.mark.parametrize("change, message", [
    (lambda a, f: a[:5] + [str(f / "absent")] + a[6:], "--input"),
    (lambda a, f: a[:3] + [str(f / "absent.npz")] + a[4:], "absent.npz does not exist"),
    (lambda a, f: a + ["--members", "0"], "members is 0"),
    (lambda a, f: a + ["--support-size", "9"],
     "--support-size is 9, but the support set has 5 entries; draw with --replacement,"),
    (lambda a, f: ["--bundle", str(f / "support")] + a[2:], "manifest.json cannot be read"),
    (lambda a, f: a + ["--threads", "0"], "threads is 0"),
    (lambda a, f: a + ["--truth", str(f / "nothing")], "is not a folder"),
])
def test_errors_are_one_line_and_nothing_is_written(case, change, message, capsys):
    folder, _, _, arguments = case
    assert main(change(arguments, folder)) == 1
    err = capsys.readouterr().err.strip()
    assert message in err and err.startswith("universeg-segment: ") and "\n" not in err
    assert not (folder / "out").exists()


def test_an_output_that_cannot_be_written(case, capsys):
    folder, _, _, arguments = case
    (folder / "out").write_text("a file")
    assert main(arguments) == 1
    assert "cannot write to" in capsys.readouterr().err
    assert (folder / "out").read_text() == "a file"


def test_colour_and_sixteen_bit_pictures(tmp_path):
    grey = (np.arange(600).reshape(20, 30) * 100).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "deep.png"), grey)
    colour = np.zeros((4, 5, 3), np.uint8)
    colour[..., 1] = 200
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").shape == (4, 5) and 110 < read_image(tmp_path / "colour.png")[0, 0] < 125


def test_help_has_an_example():
    out = subprocess.run([sys.executable, "-m", "universeg_rt.cli.segment", "--help"], capture_output=True, text=True)
    assert out.returncode == 0 and "example:" in out.stdout and "--support" in out.stdout


def test_doubtful_masks_are_named_for_review(case, small_bundle, capsys):
    folder, images, _, arguments = case
    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"))
    confidences = [task.predict(image).confidence for image in images]
    middle = sorted(confidences)[1]
    assert main([*arguments, "--review-below", str(middle)]) == 0
    out = capsys.readouterr().out
    rows = json.loads((folder / "out" / "report.json").read_text())["images"]
    assert [row["confidence"] for row in rows] == pytest.approx(confidences)
    assert [row["review"] for row in rows] == [row["confidence"] < middle for row in rows] and any(row["review"]
                                                                                                   for row in rows)
    lowest = rows[int(np.argmin(confidences))]
    assert f"1 of them to be looked at: confidence below {middle:g}" in out and lowest["input"] in out
    assert "mean_spread" not in lowest
    assert main([*arguments, "--resume"]) == 0
    assert all("review" not in row for row in json.loads((folder / "out" / "report.json").read_text())["images"])
    assert main([*arguments, "--review-below", "2"]) == 1
    assert "--review-below is 2.0" in capsys.readouterr().err


def test_windows_and_percentiles_of_the_command(case, small_bundle):
    from universeg_rt import Percentiles

    folder, images, _, arguments = case
    assert main([*arguments, "--percentiles", "2", "98", "--probabilities"]) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["normalise"] == "percentiles 2 to 98"
    task = Segmenter.open(small_bundle).prepare(SupportSet.load(folder / "support"), normalise=Percentiles(2, 98))
    assert np.array_equal(np.load(folder / "out" / report["images"][0]["probability"]),
                          task.predict(images[0]).probability)
    assert main([*arguments, "--window", "50", "200", "--resume"]) == 1, "masks of other settings are not gone on with"
