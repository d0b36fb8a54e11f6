"""Results against each other: paired differences, the interval over subjects, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[train]'")

from universeg_rt.training.evaluation import compare
from universeg_rt.training.evaluation.intervals import interval
from universeg_rt.training.evaluation.record import this_run, write_results

pytestmark = pytest.mark.torch
SETUP = {"protocol": {"support_sizes": [4], "members": [1]}}
SUBJECTS = ["a", "a", "b", "c", "d"]


@pytest.fixture
def files(made, tmp_path):
    """before.json and after.json: two data sets of one task; the second is better by 0.2 and by 0.1 on average."""
    before = {"t": [0.2, 0.4, 0.5, 0.6, 0.3], "u": [0.5] * 5}
    gains = {"t": [0.1, 0.3, 0.2, 0.1, 0.3], "u": [0.1] * 5}
    for name, scores in (("before", before), ("after", {t: np.add(v, gains[t]) for t, v in before.items()})):
        measured = [made.measured(task, f"d{task}", SUBJECTS, values) for task, values in scores.items()]
        write_results(tmp_path / f"{name}.json", SETUP, [this_run(["x"], False)], measured, {})
    return tmp_path, gains


def test_differences_are_paired_and_have_the_interval_over_subjects(files, capsys):
    folder, gains = files
    assert compare.main([str(folder / "before.json"), str(folder / "after.json")]) == 0
    _, _, first, second, mean = capsys.readouterr().out.splitlines()
    low, high = interval(np.array(gains["t"]), np.array(SUBJECTS))
    assert first.startswith("| t | 4 | 1 | 0.400 [") and first.endswith(f"| +0.200 [{low:+.2f}, {high:+.2f}] |")
    assert "| u | 4 | 1 | 0.500 " in second and "| +0.100 [+0.10, +0.10] |" in second
    assert mean == "| **mean over data sets** | 4 | 1 | 0.450 - | +0.150 - |"


def test_a_file_against_itself_gains_nothing(files, capsys):
    folder, _ = files
    assert compare.main([str(folder / "before.json"), str(folder / "before.json"), "--method", "copy"]) == 0
    assert capsys.readouterr().out.count("+0.000") == 3


def test_what_cannot_be_compared(files, made, capsys):
    folder, _ = files
    one = [made.measured("t", "dt", SUBJECTS, 0.5)]
    other = [made.measured("t", "dt", ["a", "b", "b", "c", "d"], 0.5), made.measured("u", "du", SUBJECTS, 0.5)]
    for name, setup, measured in (("one", SETUP, one), ("other", SETUP, other), ("none", SETUP, []),
                                  ("cells", {"protocol": {"support_sizes": [8], "members": [1]}}, one)):
        write_results(folder / f"{name}.json", setup, [], measured, {})
        assert compare.main([str(folder / "before.json"), str(folder / f"{name}.json")]) == 1
        said = capsys.readouterr().err
        assert ("holds no task" if name == "none" else "not of the same tasks, queries, S and K") in said
    assert compare.main([str(folder / "before.json"), str(folder / "after.json"), "--method", "static"]) == 1
    assert "task t has no 'static'; it has exact, atlas, copy" in capsys.readouterr().err
    (folder / "broken.json").write_text("{}")
    assert compare.main([str(folder / "before.json"), str(folder / "broken.json")]) == 1
