"""The measurement of regions in volumes: runs on made-up volumes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="baselines come from the training package: pip install '.[train]'")
pytest.importorskip("nibabel", reason="volumes are NIfTI: pip install '.[medical]'")

from universeg_rt.benchmarks.cpu.regions import main
from universeg_rt.benchmarks.cpu.volume_sets import read_set
from universeg_rt.supports.volumes import SliceChoice


def test_support_and_queries_are_of_other_subjects(balls):
    found = read_set(balls, SliceChoice("acquired", 4, 1), ["test"], 2, 9)
    asked = {scan.subject for scan in found.scans}
    assert len(asked) == 1 and len(found.support) == 5
    assert not asked & {name.split()[0] for name in found.support.names}
    scan = found.scans[0]
    assert len(scan.images) == 8 and scan.scored.all() and set(found.support.values) == {1, 2}
    assert {int(value) for label in scan.labels for value in np.unique(label)} == {0, 1, 2}


def test_the_command_measures_every_way(balls, tmp_path, small_bundle, capsys):
    asked = ["--bundle", str(small_bundle), "--support-size", "4", "--threads", "1", "--output",
             str(tmp_path / "out.json")]
    assert main([*asked, "--volumes", str(balls)]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["label"] for row in rows] == ["label 1", "label 2"]
    for row, other in zip(rows, ("label 2", "label 1")):
        ways = {"off", "absent", "follow", "from a box", "before", "region", "atlas", "copy", f"within {other}"}
        assert row.keys() == {"data", "label", "unit", *ways} and all(0 <= row[way] <= 1 for way in ways)
    said = capsys.readouterr().out
    assert "| balls, label 1 | 1 |" in said and "balls: 6 entries, 2 of them without a label" in said
    assert main(asked) == 1
    assert "no volumes are given" in capsys.readouterr().err
    assert main([*asked, "--volumes", str(balls), "--axis", "axial", "axial"]) == 1
    assert "2 axes for 1 folders" in capsys.readouterr().err
