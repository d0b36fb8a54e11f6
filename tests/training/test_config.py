"""Training configurations: read strictly, written back whole."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.config import TrainConfig, from_dict, load_config, to_dict

pytestmark = pytest.mark.torch


def test_our_configurations_read_and_come_back(training_folder):
    paths = sorted((training_folder / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        config = load_config(path)
        assert from_dict(TrainConfig, yaml.safe_load(yaml.safe_dump(to_dict(config))), "again") == config
        assert not any("wbc1" in name for name in config.data.datasets)


def test_the_defaults_come_back():
    assert from_dict(TrainConfig, to_dict(TrainConfig()), "again") == TrainConfig()


@pytest.mark.parametrize("text, message", [
    ("stages: [", "is not YAML"),
    ("[1, 2]", "expected a mapping"),
    ("colour: 1", "unknown fields colour"),
    ("stages: []", "at least one stage"),
    ("stages: [{size: 64}]", "samples"),
    ("stages: [{samples: 10, size: 60}]", "multiple of 8"),
    ("stages: [{samples: 10, entries: [0, 4]}]", "1 <= low <= high"),
    ("stages: [{samples: 10, entries: [4]}]", "list of 2"),
    ("stages: [{samples: 10, entries: 4}]", "expected a list"),
    ("stages: [{samples: ten}]", "samples is 'ten'; expected int"),
    ("stages: [{samples: 10, learning_rate: high}]", "expected float"),
    ("autocast: half", "accepted: none, bfloat16, float16"),
    ("network: {preset: v2}", "v2"),
    ("data: {synthetic: {families: {snow: 1}}}", "snow"),
    ("data: {augment: {task: {invert: {probability: x}}}}", "invert: probability"),
    ("data: {augment: {task: {invert: {probability: 1.5}}}}", "lies in .0, 1."),
    ("data: {augment: {task: {gamma: {probability: 0.5, range: [2, 1]}}}}", "from low to high"),
    ("data: {real_probability: -1}", "real_probability is -1"),
    ("data: {splits: [train]}", "accepted: support, dev, test"),
    ("data: {synthetic_tasks: 0}", "at least 1"),
    ("clip_norm: 0", "clip_norm lies above 0"),
    ("stages: [{samples: 10, average_samples: 0}]", "at least 1"),
    ("checkpoint_samples: 0", "at least 1"),
])
def test_bad_configurations_are_refused_and_say_where(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises((InputError, ValueError), match=message):
        load_config(tmp_path / "c.yaml")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot read"):
        load_config(tmp_path / "none.yaml")


def test_exponents_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("stages: [{samples: 10, learning_rate: 1e-3}]")
    assert load_config(tmp_path / "c.yaml").stages[0].learning_rate == 1e-3
