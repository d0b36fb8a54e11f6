"""Synthetic tasks: reproducible, in range, varied, and every family able to give a target."""

from __future__ import annotations

import time

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

from universeg_rt.errors import InputError
from universeg_rt.training.episodes import shapes
from universeg_rt.training.episodes.appearance import Appearance
from universeg_rt.training.episodes.families import FAMILIES
from universeg_rt.training.episodes.fields import Draw, gaussian_blur, identity_grid, min_max, smooth_noise, sobel, warp
from universeg_rt.training.episodes.synthetic import (
    SMALLEST_NESTED,
    SMALLEST_TARGET,
    SyntheticConfig,
    synthetic_subjects,
)
from universeg_rt.training.tasks.harden import harden

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_gives_images_and_targets(family):
    config = SyntheticConfig(families={family: 1.0})
    shares = []
    for seed in range(6):
        images, labels = synthetic_subjects(seed, 4, 48, config)
        assert images.shape == labels.shape == (4, 1, 48, 48) and images.dtype == labels.dtype == torch.float32
        assert float(images.min()) >= 0.0 and float(images.max()) <= 1.0 and bool(torch.isfinite(images).all())
        assert set(labels.unique().tolist()) <= {0.0, 1.0}
        assert bool((images.flatten(1).std(1) > 0.01).all())
        shares.append(labels.mean((1, 2, 3)))
        smallest = SMALLEST_NESTED if family == "nested" else SMALLEST_TARGET
        assert smallest < float(labels.mean()) and float(labels.mean()) < 0.75
    assert float(torch.stack(shares).std()) > 0.0


def test_a_seed_gives_the_same_task_and_another_seed_another():
    first, again, other = (synthetic_subjects(s, 3, 32) for s in (5, 5, 6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


def test_other_subjects_of_the_same_task_look_alike():
    """The contrast of the target is the task's, whoever the subjects are and however many."""
    def contrast(seed, subjects, subject_seed):
        images, labels = synthetic_subjects(seed, subjects, 32, subject_seed=subject_seed)
        return float((images * labels).sum() / labels.sum() - (images * (1 - labels)).sum() / (1 - labels).sum())
    one, other = ([contrast(s, n, e) for s in range(40)] for n, e in ((4, 1), (7, 2)))
    assert torch.corrcoef(torch.tensor([one, other]))[0, 1] > 0.7
    assert not torch.equal(synthetic_subjects(1, 2, 32)[0], synthetic_subjects(1, 2, 32, subject_seed=1)[0])


def test_the_order_of_the_families_in_a_file_decides_nothing():
    one, other = (SyntheticConfig(families=dict(order)) for order in (
        [("blobs", 1.0), ("layers", 2.0)], [("layers", 2.0), ("blobs", 1.0)]))
    assert all(
        torch.equal(synthetic_subjects(s, 2, 16, one)[0],
                    synthetic_subjects(s, 2, 16, other)[0]) for s in range(8))


def test_the_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = synthetic_subjects(3, 2, 32)[0]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, synthetic_subjects(3, 2, 32)[0])


def test_subjects_of_a_task_resemble_each_other_more_than_those_of_other_tasks():
    """The mean intensity inside the target, relative to outside, is what a support set tells of a query."""
    def contrast(images, labels):
        inside = (images * labels).sum((1, 2, 3)) / labels.sum((1, 2, 3)).clamp_min(1)
        outside = (images * (1 - labels)).sum((1, 2, 3)) / (1 - labels).sum((1, 2, 3)).clamp_min(1)
        return inside - outside
    table = torch.stack([contrast(*synthetic_subjects(seed, 4, 32)) for seed in range(40)])
    assert float(table.var(1).mean()) < 0.5 * float(table.mean(1).var())


def test_vessels_are_thin_and_nuclei_many():
    def eroded(labels):
        return 1.0 - torch.nn.functional.max_pool2d(1.0 - labels, 7, 1, 3)
    draw = Draw(0)
    grid = identity_grid(128, "cpu").expand(4, -1, -1, -1)
    thin = [(shapes.vessels(Draw(s), grid).labels > 0).float()[:, None] for s in range(6)]
    left = sum(float(eroded(x).sum()) for x in thin) / sum(float(x.sum()) for x in thin)
    assert left < 0.25
    counts = [shapes.blobs(Draw(s), grid).instance.flatten(1).max().item() for s in range(12)]
    assert max(counts) > 40
    assert draw.chance(1.0) and not draw.chance(0.0)


def test_textures_alone_leave_no_label_brighter_than_another():
    config = SyntheticConfig(families={"anatomy": 1.0}, appearance=Appearance(textured=1.0, bias=0.0))
    plain = SyntheticConfig(families={"anatomy": 1.0}, appearance=Appearance(textured=0.0, bias=0.0))
    steps = []
    for chosen in (config, plain):
        pairs = [synthetic_subjects(seed, 8, 32, chosen) for seed in range(12)]
        steps.append(sum(abs(float(i[m > 0].mean() - i[m == 0].mean())) for i, m in pairs) / 12)
    assert steps[0] < 0.3 * steps[1]


def test_a_fundus_is_dark_around_and_its_vessels_are_faint():
    config = SyntheticConfig(families={"retina": 1.0}, appearance=Appearance(fundus=1.0, noise=0.0))
    images = torch.cat([synthetic_subjects(seed, 4, 64, config)[0] for seed in range(8)])
    corners = images[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].amin(1)
    assert float(corners.median()) < 0.1 and 0.2 < float(images[:, 0, 24:40, 24:40].median()) < 0.8


def test_unknown_or_no_families_are_refused():
    with pytest.raises(InputError, match="snowflakes"):
        SyntheticConfig(families={"snowflakes": 1.0})
    with pytest.raises(InputError):
        SyntheticConfig(families={"blobs": 0.0})


def test_generation_is_faster_than_the_network_consumes():
    """An episode of 6 images at 64x64 costs the width-64 network about 0.6 s of one core; drawing it far less."""
    synthetic_subjects(0, 6, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        for seed in range(10):
            synthetic_subjects(seed, 6, 64)
        assert (time.process_time() - started) / 10 < 0.3
    finally:
        torch.set_num_threads(threads)


def test_harden_keeps_thin_lines_and_areas():
    labels = torch.zeros(1, 1, 64, 64)
    labels[..., 20, :] = 1.0
    labels[..., 40:60, 40:60] = 1.0
    shrunk = torch.nn.functional.avg_pool2d(labels, 2)
    assert float(shrunk[..., 10, :].max()) == 0.5 and float(harden(shrunk)[..., 10, :].mean()) == 1.0
    disc = (identity_grid(64, "cpu").square().sum(-1) < 0.5).float()[None, None]
    small = harden(torch.nn.functional.interpolate(disc, size=(24, 24), mode="bilinear", antialias=True))
    assert abs(float(small.mean()) - float(disc.mean())) < 0.02
    assert float(harden(torch.zeros(1, 1, 8, 8)).sum()) == 0.0


def test_fields():
    draw = Draw(0)
    assert smooth_noise(draw, 2, 3, 32, 0.3).shape == (2, 3, 32, 32)
    rough, smooth = (smooth_noise(draw, 4, 1, 64, cell) for cell in (0.05, 0.5))
    assert rough.diff(dim=-1).abs().mean() > 3 * smooth.diff(dim=-1).abs().mean()
    image = torch.rand(2, 1, 32, 32)
    assert torch.allclose(warp(image, identity_grid(32, "cpu").expand(2, -1, -1, -1)), image, atol=1e-5)
    blurred = gaussian_blur(image, torch.tensor([0.0, 2.0]))
    assert torch.allclose(blurred[0], image[0], atol=1e-6) and blurred[1].std() < 0.5 * image[1].std()
    assert float(min_max(image * 7 - 3).max()) == 1.0 and float(min_max(torch.ones(1, 1, 4, 4)).max()) == 0.0
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1.0
    assert float(sobel(step)[0, 0, 4, 4]) == pytest.approx(0.5, abs=1e-4) and float(sobel(step)[0, 0, 4, 0]) < 1e-5


def test_most_targets_of_nested_anatomy_are_small_and_none_needs_to_stand_out():
    config = SyntheticConfig(families={"nested": 1.0})
    shares, contrasts = [], []
    for seed in range(40):
        images, labels = synthetic_subjects(seed, 4, 64, config)
        shares.append(float(labels.mean()))
        inside, rim = (images * labels).sum() / labels.sum(), ring(labels)
        contrasts.append(abs(float(inside - (images * rim).sum() / rim.sum())))
    assert sum(share < 0.01 for share in shares) > 8 and max(shares) > 0.02
    assert sum(contrast < 0.05 for contrast in contrasts) > 5


def ring(labels):
    """What lies within three pixels of a target, outside it."""
    return torch.nn.functional.max_pool2d(labels, 7, 1, 3) - labels


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_absent_target_is_not_seen(family):
    config = SyntheticConfig(families={family: 1.0}, background_probability=1.0)
    same = different = 0
    for seed in range(4):
        (there, marked), (absent, empty) = (synthetic_subjects(seed, 3, 48, config, absent=n) for n in (0, 1))
        assert not empty[0].any() and marked[0].any() and torch.equal(empty[1:], marked[1:])
        moved = (there[0] - absent[0]).abs()
        different += float((moved * marked[0]).sum())
        same += float((moved * (1 - marked[0])).mean())
    assert different > 0 and same < different
