"""The benchmark of a volume run: whole processes, with the network's share and what the rest goes into."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt.benchmarks.cpu.volume import main


def test_it_says_where_the_time_goes(tmp_path, small_bundle, capsys):
    assert main(["--shape", "24", "20", "6", "--support-size", "4", "--labels", "2", "--threads", "1", "--repeats", "2",
                 "--json", str(tmp_path / "out.json"), "--", "--bundle", str(small_bundle)]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert len(found["wall"]) == len(found["stages"]) == 2
    for wall, stage in zip(found["wall"], found["stages"]):
        assert sum(stage.values()) == pytest.approx(wall)
        assert {"read", "preprocess", "network", "postprocess", "write", "starting and ending"} == set(stage)
        assert min(stage.values()) >= 0
    assert "of it, aim 0.7" in capsys.readouterr().out


def test_what_the_command_refuses_is_said(tmp_path, capsys):
    assert main(["--shape", "9", "9", "3", "--support-size", "2", "--repeats", "1", "--", "--bundle",
                 str(tmp_path / "absent")]) == 1
    assert "universeg-segment failed" in capsys.readouterr().err
