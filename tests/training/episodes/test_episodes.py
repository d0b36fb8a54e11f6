"""Which data sets and windows episodes are drawn from."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install '.[train]'")

from universeg_rt.training.episodes.augment import AugmentConfig
from universeg_rt.training.episodes.config import DataConfig
from universeg_rt.training.episodes.episodes import EpisodeSource
from universeg_rt.training.episodes.fields import Draw

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
