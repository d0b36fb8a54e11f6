"""The demo runs on the shipped bundle and finds what it is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="the demo needs nibabel: pip install '.[demo]'")

from universeg_rt.cli import demo


def test_the_demo_segments_both_tissues(tmp_path, capsys):
    try:
        demo.load_slices()
    except Exception as error:
        pytest.skip(f"the demo's MRI is not here: {error}")
    assert demo.main(["--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for name in ("grey matter", "white matter"):
        assert np.mean(list(report[name]["dice"].values())) > 0.6
        assert report[name]["median_seconds"] > 0
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    assert len(list(tmp_path.glob("*_mask.png"))) == 2 * len(demo.QUERY_SLICES)
    assert "demo.png" in capsys.readouterr().out


def test_a_runner_that_counts_no_threads_runs_it_too(tmp_path, capsys, monkeypatch):
    """As those on a GPU do."""
    images = np.random.default_rng(0).random((3, 40, 40))
    monkeypatch.setattr(demo, "load_slices", lambda: {"T1": images, "grey matter": images > 0.5})
    monkeypatch.setattr(demo, "SUPPORT_SLICES", (0, 1))
    monkeypatch.setattr(demo, "QUERY_SLICES", (2, 2))
    segmenter = demo.Segmenter.open(threads=1)
    del segmenter.runner.threads
    segmenter.runner.device = "Some GPU"
    monkeypatch.setattr(demo.Segmenter, "open", lambda path: segmenter)
    assert demo.main(["--output", str(tmp_path)]) == 0
    assert "Some GPU\n" in capsys.readouterr().out


def test_support_and_queries_are_different_slices():
    assert not set(demo.SUPPORT_SLICES) & set(demo.QUERY_SLICES)


def test_without_nilearn_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said_before_the_bundle_is_opened(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(demo, "load_slices", lambda: {"T1": None})
    monkeypatch.setattr(demo.Segmenter, "open", lambda *_, **__: pytest.fail("the bundle was opened"))
    assert demo.main(["--output", str(tmp_path / "file" / "below")]) == 1
    assert "cannot write" in capsys.readouterr().err
