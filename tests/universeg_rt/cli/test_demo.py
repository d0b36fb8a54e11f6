"""The demo runs on the shipped bundle: a label map on the volume's voxels, a report, a picture; its support is not
scored."""

from __future__ import annotations

import json

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="the demo needs nibabel: pip install '.[demo]'")
pytest.importorskip("jinja2", reason="the demo needs jinja2: pip install '.[demo]'")

from universeg_rt.cli import demo
from universeg_rt.volumes.reading import read_volume

KEPT = slice(40, 125, 12)  # axial slices of the template, eight of them: all take a minute


@pytest.fixture
def few(tmp_path, monkeypatch):
    """The template with eight of its slices, every second of them a support."""
    try:
        path, volume, labels = demo.load()
    except Exception as error:
        pytest.skip(f"the demo's MRI is not here: {error}")
    small = tmp_path / "given" / path.name
    small.parent.mkdir()
    nibabel.save(nibabel.Nifti1Image(np.asarray(volume.values)[:, :, KEPT], volume.geometry.affine), small)
    monkeypatch.setattr(demo, "load", lambda: (small, read_volume(small), labels[:, :, KEPT]))
    monkeypatch.setattr(demo, "SUPPORT_SLICES", (0, 2, 4, 6))
    return labels[:, :, KEPT]


def test_the_demo_segments_a_volume_in_three_labels(few, tmp_path, capsys):
    assert demo.main(["--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (row,) = report["images"]
    assert list(row["labels"]) == list(demo.LABELS.values()) and row["slices"] == 8 and row["in_support"] == 4
    found = np.asarray(nibabel.load(tmp_path / "out" / row["mask"][0]).dataobj)
    for value, name in demo.LABELS.items():
        a, b = found[:, :, 1::2] == value, few[:, :, 1::2] == value
        assert row["labels"][name]["dice"] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert row["labels"]["grey matter"]["dice"] > 0.6 and row["labels"]["white matter"]["dice"] > 0.6
    assert (tmp_path / "out" / "demo.png").stat().st_size > 10_000
    assert "data:image/png" in (tmp_path / "out" / "report.html").read_text()
    out = capsys.readouterr().out
    assert "4 of 8 axial slices are the support" in out and "report.html" in out and "universeg-segment" in out


def test_support_slices_show_the_brain():
    try:
        _, volume, labels = demo.load()
    except Exception as error:
        pytest.skip(f"the demo's MRI is not here: {error}")
    for value in demo.LABELS:
        assert all((labels[:, :, z] == value).any() for z in demo.SUPPORT_SLICES[1:-1])


def test_without_nilearn_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_segmented(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(demo, "load", lambda: (None, None, None))
    monkeypatch.setattr(demo.segment, "main", lambda *_: pytest.fail("segmented"))
    assert demo.main(["--output", str(tmp_path / "file" / "below")]) == 1
    assert "cannot write" in capsys.readouterr().err
