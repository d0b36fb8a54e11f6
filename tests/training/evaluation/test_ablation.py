"""Studies of small runs: variants as changes to a config, the table over seeds, and wrong studies."""

from __future__ import annotations

import csv

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.episodes.config import Stage
from universeg_rt.training.evaluation import ablation
from universeg_rt.training.evaluation.protocol import CLOSED, check_closed
from universeg_rt.training.run.config import TrainConfig, load_config
from universeg_rt.training.settings.values import override

pytestmark = pytest.mark.torch

STUDY = """
base: {network: {features: 2}, stages: [{samples: 4, size: 16, entries: [1, 2], queries: 1, episodes: 2}]}
evaluation: {entries: 2, queries: 2}
held_out: {squares: [h.yaml], reported: [r.yaml]}
variants:
  all:
  synthetic: {data: {real_probability: 0}}
"""


@pytest.fixture
def folder(kit, tmp_path):
    """A task to train on, one to judge by, one to report; a config and a study."""
    for name in ("d", "h", "r"):
        task = kit.real_task(30, name=name)
        np.savez(tmp_path / f"{name}.npz", images=task.images, labels=task.labels, ids=np.arange(30).astype(str))
        (tmp_path /
         f"{name}.yaml").write_text(f"{{name: {name}, licence: x, tasks: [{{name: task {name}, file: {name}.npz}}]}}")
    (tmp_path / "c.yaml").write_text("data: {datasets: [d.yaml]}")
    (tmp_path / "s.yaml").write_text(STUDY)
    return tmp_path


def command(folder, *extra):
    return ablation.main([
        str(folder / "c.yaml"),
        str(folder / "s.yaml"), "--output",
        str(folder / "out"), "--data-root",
        str(folder), *extra
    ])


def test_the_table_is_filled_once_and_goes_on(folder):
    for seeds in ("1", "2", "2"):
        assert command(folder, "--seeds", seeds) == 0
    rows = list(csv.DictReader(open(folder / "out" / "ablation.csv")))
    assert [(r["variant"], r["seed"]) for r in rows] == [("all", "0"), ("synthetic", "0"), ("all", "1"),
                                                         ("synthetic", "1")]
    assert all(r["mean"] == r["squares"] == r["task h"] and 0 <= float(r["reported"]) <= 1 for r in rows)
    lines = (folder / "out" / "ablation.md").read_text().splitlines()
    assert len(lines) == 4 and lines[2].startswith("| all | 2 | ") and "±" in lines[2]


def test_means_and_spread_are_over_seeds():
    rows = [{"variant": "a", "seed": str(i), "mean": str(v), "x": "0.5"} for i, v in enumerate((0.2, 0.4))]
    assert "| a | 2 | 0.300 ± 0.141 |  | 0.500 ± 0.000 |" in ablation.markdown(rows, ["x"])
    assert "| a | 1 | 0.200 |  | 0.500 |" in ablation.markdown(rows[:1], ["x"])


def test_a_variant_is_compared_with_the_first_seed_by_seed():
    rows = [{"variant": name, "seed": str(i), "mean": str(v + gain), "x": "0.5"}
            for name, gain in (("a", 0.0), ("b", 0.05)) for i, v in enumerate((0.2, 0.4, 0.9))]
    assert "| +0.050 (+0.050 to +0.050) |" in ablation.markdown(rows, ["x"])
    assert "| b | 2 | 0.350 ± 0.141 | +0.050 |" in ablation.markdown(rows[:5], ["x"])


def test_processes_share_a_study_and_runs_begin_from_the_same_weights(folder, monkeypatch):
    from universeg_rt.training.run.train import Trainer

    assert command(folder, "--seeds", "1", "--first-seed", "1") == 0
    assert {row["seed"] for row in csv.DictReader(open(folder / "out" / "ablation.csv"))} == {"1"}
    begun = []
    monkeypatch.setattr(Trainer, "begin_from", lambda self, path: begun.append(path.name))
    assert command(folder, "--seeds", "1", "--weights", str(folder / "w.safetensors")) == 0
    assert begun == ["w.safetensors"] * 2  # seed 0 of both variants; what is in the table is not done again


def test_changes_reach_into_a_config_and_replace_lists_and_dicts():
    config = override(
        TrainConfig(), {
            "data": {"synthetic": {"families": {"blobs": 1}}, "augment": {"task": {"invert": {"probability": 0}}}},
            "stages": [{"samples": 8, "target_share": [0.1, 1.0]}]
        }, "here")
    assert config.data.synthetic.families == {"blobs": 1.0} and config.stages == (Stage(
        samples=8, target_share=(0.1, 1.0)), )
    task = config.data.augment.task
    assert task.invert.probability == 0 and task.flip_vertical.probability == 0.5
    for bad in ({"date": {}}, {"data": {"synthetic": {"families": {"moons": 1}}}}, {"loss": "magic"}, ["seed"],
                {"stages": [{"samples": 8, "target_share": [1.0, 0.1]}]}):
        with pytest.raises(InputError):
            override(TrainConfig(), bad, "here")


def test_the_studies_that_are_shipped_change_what_there_is(training_folder):
    base = load_config(training_folder / "configs" / "cpu.yaml")
    for path in sorted((training_folder / "studies").glob("*.yaml")):
        study = ablation.read_study(path)
        for name, changes in study.variants.items():
            override(override(base, study.base, "base"), changes or {}, name)
        files = [path.parent / file for files in study.held_out.values() for file in files]
        assert all(file.is_file() for file in files)
        check_closed(files)


def test_variants_are_judged_by_dev_images_and_never_by_the_closed_group(folder, monkeypatch, capsys):
    from universeg_rt.training.run import validate

    asked, real = [], validate.task_dice
    monkeypatch.setattr(validate, "task_dice", lambda *given: asked.append(given[-1]) or real(*given))
    assert command(folder, "--seeds", "1") == 0 and set(asked) == {"dev"}
    (folder / CLOSED).mkdir()
    (folder / "h.yaml").rename(folder / CLOSED / "h.yaml")
    (folder / "s.yaml").write_text(STUDY.replace("h.yaml", f"{CLOSED}/h.yaml"))
    assert command(folder, "--seeds", "1") == 1 and "no choice may see" in capsys.readouterr().err


@pytest.mark.parametrize("text, message", [
    (None, "does not exist"),
    ("{", "is not YAML"),
    ("variants: {a: {}}", "missing"),
    ("{base: {}, held_out: {}, variants: {}}", "at least one"),
    (STUDY.replace("real_probability", "real_likelihood"), "real_likelihood"),
    (STUDY.replace("h.yaml", "d.yaml"), "both trained on and held out"),
])
def test_errors_are_one_line(folder, capsys, text, message):
    (folder / "s.yaml").unlink()
    if text is not None:
        (folder / "s.yaml").write_text(text)
    assert command(folder) == 1
    err = capsys.readouterr().err.strip()
    assert err.startswith(
        "python -m universeg_rt.training.evaluation.ablation: ") and message in err and "\n" not in err
