"""The measurement of absent targets: thresholds and effects by hand, and a run on made-up data sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="data sets are read by the training package: pip install '.[train]'")
pytest.importorskip("yaml", reason="data sets are read by the training package: pip install '.[train]'")

from universeg_rt.benchmarks.cpu.absence import CANDIDATES, effect, main, threshold_at

from ...conftest import discs

ROWS = [{"present": 1, "dice": d, "marked": 0.2, "unit": f"p{d}", "area": a}
        for d, a in ((0.1, 1), (0.5, 3), (0.9, 5))]
ROWS += [{"present": 0, "dice": 0.0, "marked": m, "unit": f"a{m}", "area": a}
         for m, a in ((0.1, 2), (0.3, 4), (0.0, 9))]


@pytest.mark.parametrize("cost, threshold", [(0.0, 1), (0.034, 3), (0.19, 3), (0.21, 5), (9, 5)])
def test_a_threshold_costs_no_more_dice_than_it_may(cost, threshold):
    assert threshold_at(ROWS, "area", cost) == threshold
    assert np.mean(effect(ROWS, "area", threshold)["lost"]) <= cost


def test_what_a_rule_does_by_hand():
    found = effect(ROWS, "area", 3)
    assert found == {"images": [0, 1, 0], "area": [0, 0.3, 0],  # the empty mask is none
                     "emptied": [1, 0, 0], "lost": [0.1, 0, 0]}
    nothing = effect(ROWS, "area", -np.inf)
    assert nothing == {"images": [1, 1, 0], "area": [0.1, 0.3, 0], "emptied": [0, 0, 0], "lost": [0, 0, 0]}


def test_the_command_finds_absent_images_in_the_other_tasks(tmp_path, small_bundle, capsys):
    images, labels = discs(30)
    ids = np.arange(30).astype(str)
    for name, chosen in (("a", slice(0, 20)), ("b", slice(10, 30))):
        marked = labels[chosen].astype(np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images[chosen], labels=marked, ids=ids[chosen])
    (tmp_path / "two.yaml").write_text("name: two\nlicence: none\ntasks:\n  - {name: a, file: a.npz}\n"
                                       "  - {name: b, file: b.npz}\n")
    asked = [str(tmp_path / "two.yaml"), "--data-root", str(tmp_path), "--bundle", str(small_bundle), "--support-size",
             "4", "--absent", "1", "--queries", "2", "--threads", "1"]
    assert main([*asked, "--output", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["present"] for row in rows} == {0, 1} and all(set(CANDIDATES) <= row.keys() for row in rows)
    said = capsys.readouterr().out
    assert "Support: some without" in said and "| doing nothing |" in said and "| **looks** | 0.400 |" in said
    (tmp_path / "one.yaml").write_text("name: one\nlicence: none\ntasks:\n  - {name: a, file: a.npz}\n")
    assert main([str(tmp_path / "one.yaml"), *asked[1:]]) == 1
    assert "no absent images" in capsys.readouterr().err
    assert main([*asked, "--absent", "4"]) == 1
    assert "accepted: 1 to 3" in capsys.readouterr().err


def test_volumes_have_slices_with_each_label_and_without(balls, tmp_path, small_bundle, capsys):
    assert main(["--volumes", str(balls), "--bundle", str(small_bundle), "--support-size", "4", "--absent", "1",
                 "--threads", "1", "--output", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())
    assert {row["task"] for row in rows} == {"balls label 1", "balls label 2"}
    for label, holding in (("label 1", 7), ("label 2", 3)):
        for kind in ("all with the target", "some without"):
            of = [row for row in rows if row["task"].endswith(label) and row["support"] == kind]
            assert len(of) == 8 and sum(row["present"] for row in of) == holding
    assert len({row["unit"] for row in rows}) == 1  # of five subjects one is asked
    assert "2 tasks, 10 present images" in capsys.readouterr().out
