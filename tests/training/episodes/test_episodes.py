"""Which data sets and windows episodes are drawn from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.training.episodes.augment import AugmentConfig
from universeg_rt.training.episodes.config import DataConfig, Stage
from universeg_rt.training.episodes.episodes import EpisodeSource
from universeg_rt.training.episodes.fields import Draw
from universeg_rt.training.episodes.synthetic import SyntheticConfig
from universeg_rt.training.tasks.tasks import Task

pytestmark = pytest.mark.torch


def test_data_sets_are_drawn_by_the_root_of_their_subjects(kit):
    few, many = kit.real_task(4, 32, "few", "few"), kit.real_task(128, 32, "many", "many")
    source = EpisodeSource(DataConfig(real_probability=1.0), [few, many])
    drawn = []
    source._entries = lambda draw, task, *_: drawn.append(task.name) or torch.zeros(2, dtype=torch.long)
    for seed in range(600):
        source._real(Draw(seed), 1, 1)
    assert drawn.count("many") / 600 == pytest.approx(8 / (8 + 2 ** 0.5), abs=0.05)  # 64 and 2 subjects


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_windows_are_cut_at_every_size(kit, real):
    plain, cut = (EpisodeSource(dataclasses.replace(
        DataConfig(), real_probability=real, crop_probability=p, crop_window=(0.4, 0.4), crop_alike=0.0,
        augment=AugmentConfig(use_in_task=False, use_task=False)), [kit.real_task(24, 64)]) for p in (0.0, 1.0))
    shares = [
        torch.stack([source.episode(seed, 64, 2, 4)[1].mean() for seed in range(12)]).mean() for source in (plain, cut)
    ]
    assert float(shares[1]) > 1.5 * float(shares[0])


def test_a_window_alike_lies_at_one_place_in_all_images(kit):
    config = DataConfig(real_probability=1.0, crop_probability=1.0, crop_window=(0.5, 0.5), crop_alike=1.0)
    source = EpisodeSource(config, [kit.real_task()])
    ramp = torch.linspace(0, 1, 64).expand(6, 1, 64, 64)
    labels = torch.zeros(6, 1, 64, 64)
    labels[..., 24:40, 24:40] = 1
    images, labels = source._resized(Draw(3), ramp.clone(), labels, 64)
    assert all(torch.equal(images[0], image) for image in images) and labels.flatten(1).any(1).all()


def test_tiny_targets_are_drawn_by_their_share(kit):
    config = DataConfig(real_probability=0.0, synthetic=SyntheticConfig(families={"nested": 1.0}))
    tiny = []
    for probability in (0.0, 1.0):
        source = EpisodeSource(dataclasses.replace(config, tiny_probability=probability), [])
        shares = [float(source.batch([seed], Stage(samples=1, size=48, entries=(3, 3))).target.mean())
                  for seed in range(12)]
        tiny.append(sum(share < 0.01 for share in shares))
    assert tiny[1] >= 9 > tiny[0]


@pytest.mark.parametrize("real", [0.0, 1.0])
def test_a_first_query_may_lack_the_target(kit, real):
    source = EpisodeSource(DataConfig(
        real_probability=real, absent_probability=1.0, augment=AugmentConfig(use_in_task=False, use_task=False)),
        [kit.real_task(24, 64)])
    episodes = [source.episode(seed, 48, 2, 4) for seed in range(12)]
    empty = [not labels[0].any() for _, labels in episodes]
    assert sum(empty) >= (8 if real else 12)  # a large target leaves no window without it
    assert all(labels[2:].any() for _, labels in episodes)
    assert all(float(images[0].std()) > 0.02 for images, _ in episodes)


def test_a_repainted_task_keeps_its_labels_and_the_borders_of_other_structures(kit):
    task = kit.real_task(12, 64, "one", "set")
    other = np.zeros_like(task.labels)
    other[:, 4:12, 4:12] = 1
    twin = Task("two", task.images, other, task.subjects, "set")
    plain, painted = (EpisodeSource(DataConfig(real_probability=1.0, repaint_probability=p), [task, twin])
                      for p in (0.0, 1.0))
    corner = []
    for seed in range(12):
        (before, labels), (after, same) = (source._real(Draw(seed), 2, 4) for source in (plain, painted))
        assert torch.equal(labels, same) and not torch.equal(before, after)
        assert float(after.min()) >= 0 and float(after.max()) <= 1
        corner.append(float((after[:, 0, 4:12, 4:12].mean() - after[:, 0, 14:22, 4:12].mean()).abs()))
    assert max(corner) > 0.1
