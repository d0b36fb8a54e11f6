"""Augmentation: images and labels move together, tasks as a whole, and every number comes from the seed."""

from __future__ import annotations

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.training.episodes.augment import (
    AugmentConfig,
    InTaskConfig,
    TaskConfig,
    augment_episode,
    augment_in_task,
    augment_task,
    dilate,
    edge,
    erode,
)
from universeg_rt.training.episodes.fields import Draw
from universeg_rt.training.settings.operation import Operation

pytestmark = pytest.mark.torch


def episode(count=4, size=32):
    """Images that are their labels, so that moving one without the other shows."""
    labels = torch.zeros(count, 1, size, size)
    for i in range(count):
        labels[i, 0, 6 + i : 18 + i, 8:20] = 1.0
    return labels.clone(), labels


def only(kind, **operations):
    """A configuration in which nothing happens but the given operations."""
    off = {f.name: Operation(0.0, getattr(kind(), f.name).range) for f in dataclasses.fields(kind)
           if isinstance(getattr(kind(), f.name), Operation)}
    return kind(**{**off, **operations})


def test_nothing_happens_with_every_probability_at_0():
    images, labels = episode()
    for function, kind in ((augment_in_task, InTaskConfig), (augment_task, TaskConfig)):
        new = function(Draw(0), images, labels, only(kind))
        assert torch.equal(new[0], images) and torch.equal(new[1], labels)


@pytest.mark.parametrize("operations", [
    {"affine": Operation(1.0, (-25.0, 25.0))}, {"elastic": Operation(1.0, (0.05, 0.1))}])
def test_in_task_geometry_moves_image_and_label_together_and_each_entry_its_own_way(operations):
    images, labels = episode()
    images = images.clone()
    new_images, new_labels = augment_in_task(Draw(1), images, labels, only(InTaskConfig, **operations))
    agree = ((new_images > 0.5).float() == new_labels).float().mean()
    assert agree > 0.97 and not torch.equal(new_labels, labels)
    same = labels[:1].expand(4, -1, -1, -1)
    moved = augment_in_task(Draw(1), same.clone(), same, only(InTaskConfig, **operations))[1]
    assert not torch.equal(moved[0], moved[1])


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "blur", "noise", "sharpness"])
def test_in_task_intensities_leave_labels_alone(name):
    images, labels = episode()
    images = images * 0.6 + 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    operation = dataclasses.replace(getattr(InTaskConfig(), name), probability=1.0)
    new_images, new_labels = augment_in_task(Draw(2), images, labels, only(InTaskConfig, **{name: operation}))
    assert torch.equal(new_labels, labels) and not torch.equal(new_images, images)
    assert float(new_images.min()) >= 0.0 and float(new_images.max()) <= 1.0


@pytest.mark.parametrize("name, expected", [
    ("flip_horizontal", lambda x: x.flip(3)), ("flip_vertical", lambda x: x.flip(2))])
def test_task_flips_are_the_same_for_all(name, expected):
    images, labels = episode()
    new = augment_task(Draw(3), images, labels, only(TaskConfig, **{name: Operation(1.0)}))
    assert torch.equal(new[0], expected(images)) and torch.equal(new[1], expected(labels))


def test_task_rotation_turns_images_and_labels_alike():
    images, labels = episode()
    new = augment_task(Draw(3), images, labels, only(TaskConfig, rotate90=Operation(1.0)))
    assert any(torch.equal(new[1], labels.rot90(k, (2, 3))) for k in (1, 2, 3)) and torch.equal(new[0], new[1])


def test_task_intensity_and_label_operations():
    images, labels = episode()

    def done(**operations):
        return augment_task(Draw(4), images, labels, only(TaskConfig, **operations))

    assert torch.equal(done(invert=Operation(1.0))[0], 1.0 - images)
    low = done(contrast=Operation(1.0, (0.3, 0.3)))[0]
    assert float(low.max() - low.min()) == pytest.approx(0.3, abs=1e-5) and 0.0 <= float(low.min()) <= 0.7
    assert torch.equal(done(label_complement=Operation(1.0))[1], 1.0 - labels)
    assert torch.equal(done(label_dilate=Operation(1.0, (2.0, 2.0)))[1], dilate(labels, 2))
    rim = done(label_edge=Operation(1.0, (1.0, 1.0)))[1]
    assert torch.equal(rim, edge(labels, 1)) and rim.sum() == 4 * (12 * 12 - 10 * 10)
    assert float(done(sobel_image=Operation(1.0))[0][:, :, 12, 14].max()) < 0.01
    faint = 0.5 + 0.02 * images + torch.linspace(-0.4, 0.4, images.shape[-1])
    local = augment_task(Draw(4), faint, labels, only(TaskConfig, local_contrast=Operation(1.0, (4.0, 4.0))))[0]
    near = local[labels == 1].mean() - local[dilate(labels, 2) - labels == 1].mean()
    assert float(near) > 0.06 and float(local.min()) >= 0.0 and float(local.max()) <= 1.0


def test_morphology_is_what_it_says_and_never_empties_a_label():
    labels = torch.zeros(1, 1, 9, 9)
    labels[0, 0, 4, 4] = 1.0
    assert dilate(labels, 1).sum() == 9 and torch.equal(erode(dilate(labels, 1), 1), labels)
    assert erode(torch.ones(1, 1, 9, 9), 2).sum() == 81
    small = augment_task(Draw(0), labels, labels, only(TaskConfig, label_erode=Operation(1.0, (1.0, 1.0))))[1]
    assert torch.equal(small, labels)


def test_the_seed_decides_everything():
    images, labels = episode()
    first, again, other = (augment_episode(Draw(s), images, labels, AugmentConfig()) for s in (7, 7, 8))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    for seed in range(30):
        new_images, new_labels = augment_episode(Draw(seed), images, labels, AugmentConfig())
        assert set(new_labels.unique().tolist()) <= {0.0, 1.0} and new_images.shape == images.shape
        assert bool(torch.isfinite(new_images).all())


def test_switches():
    images, labels = episode()
    new = augment_episode(Draw(0), images, labels, AugmentConfig(use_in_task=False, use_task=False))
    assert torch.equal(new[0], images) and torch.equal(new[1], labels)
