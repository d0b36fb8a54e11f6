"""Training configurations: read strictly, written back whole."""

from __future__ import annotations

import dataclasses
import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError, SpecError
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.run.config import TrainConfig, load_config
from universeg_rt.training.settings.bounds import BOUNDS
from universeg_rt.training.settings.operation import Operation
from universeg_rt.training.settings.values import MAX_YAML, from_dict, to_dict
from universeg_rt.training.tasks.datasets import read_dataset

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
    ("stages: [{samples: 10, entries: [0, 4]}]", r"stages\[0\].entries is 0; it must lie in \[1, "),
    ("stages: [{samples: 10, entries: [4, 1]}]", r"entries is \[4, 1\]; it goes from low to high"),
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
    ("data: {synthetic_tasks: 0}", "synthetic_tasks is 0"),
    ("clip_norm: 0", "clip_norm is 0"),
    ("stages: [{samples: 10, average_samples: 0}]", "average_samples is 0"),
    ("checkpoint_samples: 0", "checkpoint_samples is 0"),
    ("stages: [{samples: 10, learning_rate: -1}]", r"stages\[0\].learning_rate is -1.0; it must lie in"),
    ("stages: [{samples: 10, learning_rate: .nan}]", "learning_rate is nan"),
    ("stages: [{samples: 10, learning_rate: 'inf'}]", "learning_rate is inf"),
    ("stages: [{samples: 10, final_learning_rate: -1e-3}]", "final_learning_rate is -0.001"),
    ("stages: [{samples: 10, target_share: [0.1, 2]}]", "target_share is 2.0"),
    (f"stages: [{{samples: 1{'0' * 400}}}]", "samples is 10+...0+; it must lie in"),
    (f"clip_norm: 1{'0' * 400}", "clip_norm is 10+...0+; expected float"),
    (f"seed: 1{'0' * 5000}", "cannot be read as a YAML file"),
    ("seed: -1", "seed is -1"),
    ("workers: 100000", "workers is 100000"),
    ("validation: {split: train}", "validation.split 'train'; accepted"),
    ("data: {synthetic: {families: {blobs: .inf}}}", "families is inf"),
    ("data: {synthetic: {appearance: {noise: -1}}}", "data.synthetic.appearance.noise is -1.0"),
    ("data: {augment: {task: {gamma: {probability: 0.5}}}}", "data.augment.task.gamma is 0.0; it must lie in"),
    ("data: {augment: {in_task: {scale: [1.2, 0.8]}}}", "scale is .1.2, 0.8.; it goes from low to high"),
    ('data: {datasets: ["a\\0b"]}', "cannot be read as a training configuration"),
    ("{1: 2, colour: 3}", "unknown fields 1, colour"),
    ("0", "expected a mapping"),
    ("when: 2020-13-45", "cannot be read as a YAML file"),
    ("stages: " + "[" * 3000, "cannot be read as a YAML file"),
    ("a: &a [x, *a]", "has aliases"),
    ("a: &a {k: *a}", "has aliases"),
    ("a: &a [x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + b] * 9)}]\n"
                                for b, c in zip("abcdefghi", "bcdefghij")), "has aliases"),
    ("#" * (MAX_YAML + 1), "more than .* bytes"),
    ("loss: \x00", "is not YAML"),
])
def test_bad_configurations_are_refused_and_say_where(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises((InputError, SpecError), match=message):
        load_config(tmp_path / "c.yaml")


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="none.yaml does not exist"):
        load_config(tmp_path / "none.yaml")


def test_a_pipe_or_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero"):
        with pytest.raises(InputError, match="is a pipe or a device"):
            load_config(path)


def test_another_encoding_is_said(tmp_path):
    (tmp_path / "c.yaml").write_bytes("loss: dice # é".encode("latin-1"))
    with pytest.raises(InputError, match="is not YAML"):
        load_config(tmp_path / "c.yaml")


def test_anchors_and_aliases_of_sensible_size_are_read(tmp_path):
    (tmp_path / "c.yaml").write_text("stages: [&s {samples: 10, size: 64}, {<<: *s, samples: 20}]")
    assert [(s.samples, s.size) for s in load_config(tmp_path / "c.yaml").stages] == [(10, 64), (20, 64)]


def test_an_operation_that_is_switched_off_needs_no_range():
    values = {"data": {"augment": {"task": {"gamma": {"probability": 0}}}}}
    assert from_dict(TrainConfig, values, "here").data.augment.task.gamma.range == (0.0, 0.0)


def test_numbers_are_checked_without_a_file_too():
    with pytest.raises(InputError, match=r"stages\[0\].learning_rate is nan"):
        TrainConfig(stages=(Stage(samples=1, learning_rate=float("nan")),))
    with pytest.raises(InputError, match="crop_probability is nan"):
        DataConfig(crop_probability=float("nan"))


def test_every_number_has_its_bounds():
    """A field added to a configuration gets its range, and a range whose field is gone goes with it."""
    def numbers(config):
        for field in dataclasses.fields(config):
            value, name = getattr(config, field.name), f"{type(config).__name__}.{field.name}"
            if isinstance(value, Operation):
                yield name
            elif dataclasses.is_dataclass(value):
                yield from numbers(value)
            elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
                yield from numbers(value[0])
            elif any(kind in str(field.type) for kind in ("int", "float", "Range")):
                yield name

    assert set(numbers(TrainConfig())) == set(BOUNDS)


def test_exponents_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text("stages: [{samples: 10, learning_rate: 1e-3}]")
    assert load_config(tmp_path / "c.yaml").stages[0].learning_rate == 1e-3


@pytest.mark.parametrize("text", [
    "seed: 0x{}",
    "seed: -0x{}",
    "0x{}: 1",
    "data: {{crop_probability: 0x{}}}",
    "stages: [{{samples: 0x{}}}]",
    "stages: 0x{}",
    "data: {{target_share: [0x{}, 1]}}",
    "validation: {{split: 0x{}}}",
    "data: {{datasets: [0x{}]}}",
])
def test_huge_integers_are_refused_and_shown_shortly(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text.format("f" * 50_000))
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert len(str(caught.value)) < 1000
    path.write_text("seed: 1" + ":59" * 10_000)
    with pytest.raises(InputError, match="seed is 0x"):
        load_config(path)


def test_huge_integers_in_a_data_set_are_refused_too(tmp_path):
    path = tmp_path / "d.yaml"
    for text in ("name: 0x{}", "name: a\nlicence: b\nlabels: {{0x{}: x}}", "name: a\nlicence: b\nformat: 0x{}"):
        path.write_text(text.format("f" * 50_000))
        with pytest.raises(InputError):
            read_dataset(path)
