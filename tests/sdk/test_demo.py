"""The demo runs on the shipped bundle and finds what it is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="the demo needs nibabel: pip install '.[demo]'")

from universeg_rt import demo


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


def test_support_and_queries_are_different_slices():
    assert not set(demo.SUPPORT_SLICES) & set(demo.QUERY_SLICES)


def test_without_nilearn_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert "pip install '.[demo]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
