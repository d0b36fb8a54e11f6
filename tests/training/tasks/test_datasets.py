"""Files that describe data sets: those of the project are read, bad ones are named."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.tasks.datasets import load_dataset, read_dataset

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("text, message", [
    ("name: [", "is not YAML"),
    ("name: d", "required"),
    ("{name: d, licence: x}", "lists no tasks"),
    ("{name: d, licence: x, format: zip}", "accepted: npz, folder, nifti"),
    ("{name: d, licence: x, tasks: [{name: t}]}", "lacks file"),
    ("{name: d, licence: x, colour: 3}", "unknown fields colour"),
    ("{name: d, licence: x, format: nifti}", "nifti needs"),
    ("{name: d, licence: x, format: folder, tasks: [{name: t, images: a, labels: b, value: x}]}", "value is 'x'"),
])
def test_bad_data_set_files_are_refused(tmp_path, text, message):
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_dataset(tmp_path / "d.yaml")


def test_our_descriptions_read_and_none_trains_on_what_is_for_evaluation(training_folder):
    folder = training_folder / "data_sets"
    names = {kind: {e.name for p in (folder / kind).glob("*.yaml") for e in read_dataset(p).tasks}
             for kind in ("train", "tune", "report")}
    everything = [name for group in names.values() for name in group]
    assert len(names["train"]) == 65 and len(everything) == len(set(everything))
    assert {"wbc1_cell", "shenzhen_cxr_lung", "hfh_hippocampus"} <= names["report"]


def test_our_descriptions_fit_the_material(training_folder, data_folder):
    for path in sorted((training_folder / "data_sets").glob("*/*.yaml")):
        for task in load_dataset(path, data_folder):
            assert task.images.shape[1:] == (128, 128) and task.split("support", "dev", "test") is task
            if path.parent.name != "train":  # training uses whole tasks
                assert len(task.split("support")) >= 2
