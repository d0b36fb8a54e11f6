"""The failure sheet: facts of a case, what the worst have in common, the picture and the command."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("yaml", reason="data sets are YAML: pip install '.[train]'")

from universeg_rt.training.evaluation.failures import (
    FACTS,
    Case,
    common_table,
    contrast,
    facts_of,
    main,
)
from universeg_rt.training.evaluation.sheet import BOTH, outlined
from universeg_rt.training.tasks.tasks import Task

from .discs import on_discs

pytestmark = pytest.mark.torch


def square(size=32, low=8, high=16, inside=0.75, outside=0.25):
    mask = np.zeros((size, size), bool)
    mask[low:high, low:high] = True
    return np.where(mask, inside, outside), mask


def test_facts_of_a_known_case():
    image, mask = square()
    bright = Task("t", (np.stack([image, 1 - image]) * 255).astype(np.uint8),
                  np.stack([mask, mask]).astype(np.uint8), np.array(["a", "b"]))
    facts = facts_of(image, mask, bright)
    assert set(facts) == set(FACTS) and facts["size"] == pytest.approx(
        64 / 1024) and facts["contrast"] == pytest.approx(0.5)
    assert facts["noise"] == pytest.approx(0) and facts["overlap"] == 1 and facts["polarity"] == 0.5
    assert facts["thin"] == pytest.approx(28 / 64)
    assert contrast(image, np.ones_like(mask)) == (0.0, 0.0)


def test_the_table_sets_the_worst_third_against_the_rest():
    image, mask = square()
    cases = [
        Case(t, image, mask, mask, image, mask, d, {f: d
                                                    for f in FACTS}) for t in "abc"
        for d in (0.1, 0.4, 0.5, 0.6, 0.7, 0.8)
    ]
    lines = common_table(cases).splitlines()
    assert lines[2].startswith("| a | 6 | 0.25 / 0.65 | 0.25 / 0.65 |") and len(lines) == 2 + 3 + 2
    assert "within tasks | | | +1.00" in lines[-1] and "over tasks | | | –" in lines[-2]


def test_outlines_lie_on_the_rim_within_the_mask():
    image, mask = square()
    out = outlined(image, (mask, (255, 0, 0)))
    red = (out == (255, 0, 0)).all(-1)
    assert red.sum() == 28 and not (red & ~mask).any()
    twice = outlined(image, (mask, (255, 0, 0)), (mask, (0, 255, 0)))
    assert ((twice == BOTH).all(-1) == red).all()


def test_the_command(tmp_path, small_bundle, capsys):
    command = [*on_discs(tmp_path, small_bundle), "--support-size", "4"]
    sheet = ["--sheet", str(tmp_path / "s.png"), "--table", str(tmp_path / "t.md")]
    assert main([*command, *sheet, "--show", "disc"]) == 0
    assert (tmp_path / "s.png").read_bytes()[:4] == b"\x89PNG" and "| disc | 4 |" in (tmp_path / "t.md").read_text()
    capsys.readouterr()
    for extra, message in ((["--show",
                             "moon"], "no tasks moon to show"), (["--queries",
                                                                  "0"], "must be positive"), (sheet, "needs --show")):
        assert main([*command, *extra]) == 1
        err = capsys.readouterr().err.strip()
        assert message in err and "\n" not in err
