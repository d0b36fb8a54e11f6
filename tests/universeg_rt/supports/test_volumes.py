"""Slices of labelled volumes: which are taken, that their values are the volume's, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt import InputError, SupportSet, Window
from universeg_rt.imaging.metrics import dice
from universeg_rt.imaging.normalisation import LEAST_SHARE, share_of
from universeg_rt.supports.volumes import (
    SliceChoice,
    has_volumes,
    labelled_support_of_volumes,
    plane_of,
    support_of_volumes,
    volume_pairs,
)
from universeg_rt.volumes.reading import read_volume
from universeg_rt.volumes.slicing import intensity_range

from .made import SHAPE, ball, folder, places, write  # noqa: F401 (a fixture)


def test_entries_are_slices_of_the_volumes_and_named_after_them(folder):
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=6, absent=2))
    assert len(support) == 8 and sorted({name.split(" ")[0] for name in support.names}) == ["p1", "sub/p2"]
    arrays = {name: (np.asarray(nibabel.load(folder / "images" / f"{name}.nii.gz").dataobj), ball())
              for name in ("p1", "sub/p2")}
    for (name, index), image, label in zip(places(support), support.images, support.labels):
        values, truth = arrays[name]
        # Axial slices run inferior to superior; rows front to back, columns from the patient's right to left.
        assert np.array_equal(image, values[::-1, ::-1, index].T) and np.array_equal(label, truth[::-1, ::-1, index].T)
    assert [name.split(" ")[1] for name in support.names] == ["axial"] * 8
    marked = [label.any() for label in support.labels]
    assert sum(marked) == 6 and not any(label.any() != (9 <= i <= 19) for (_, i), label in zip(places(support),
                                                                                             support.labels))
    assert all(i >= 3 for _, i in places(support)), "blank slices are never taken"


@pytest.mark.parametrize("axis, across", [("axial", 2), ("coronal", 1), ("sagittal", 0), ("acquired", 2)])
def test_every_axis(folder, axis, across):
    support = support_of_volumes(volume_pairs(folder), "label 3", SliceChoice(axis, slices=4, absent=0))
    expected = tuple(n for i, n in enumerate(SHAPE) if i != across)
    assert len(support) == 4 and all(image.shape in (expected, expected[::-1]) for image in support.images)


def test_by_area_lies_where_most_of_the_label_does_and_evenly_does_not(tmp_path):
    labels = np.zeros(SHAPE)
    labels[8:12, 10:14, 5:28] = 1  # a thin rod
    labels[4:16, 4:20, 20:26] = 1  # in a thick slab
    write(tmp_path, "p", labels)
    by_area, evenly = (support_of_volumes(volume_pairs(tmp_path), 1, SliceChoice(slices=6, absent=0, by=by))
                       for by in ("area", "even"))
    assert sum(20 <= i < 26 for _, i in places(by_area)) >= 4 and sum(20 <= i < 26 for _, i in places(evenly)) <= 2
    steps = np.diff([i for _, i in places(evenly)])
    assert steps.min() >= 3 and steps.max() <= 5


def test_more_than_there_are_gives_all(folder):
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=1000, absent=1000))
    assert len(support) == 2 * (SHAPE[2] - 3)
    assert len(set(support.names)) == len(support)


def test_a_volume_that_has_few_slices_leaves_its_share_to_others(tmp_path):
    write(tmp_path, "few", ball(1.5))
    write(tmp_path, "many", ball(6))
    found = places(support_of_volumes(volume_pairs(tmp_path), 1, SliceChoice(slices=10, absent=0)))
    assert len(found) == 10 and {name for name, _ in found} == {"few", "many"}


def test_similar_takes_the_slices_that_the_query_shows(folder):
    query = read_volume(folder / "images" / "p1.nii.gz")
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=5, absent=0, by="similar"), query=query)
    assert {name for name, _ in places(support)} == {"p1"}, "each slice of the query is the most like itself"
    with pytest.raises(InputError, match="need a query"):
        support_of_volumes(volume_pairs(folder), 3, SliceChoice(by="similar"))


def test_several_labels_are_all_there_however_small(tmp_path):
    labels = ball() * 3
    labels[2:4, 2:4, 27] = 7
    write(tmp_path, "p", labels)
    for by in ("area", "even"):
        support = labelled_support_of_volumes(volume_pairs(tmp_path), None, SliceChoice(slices=4, absent=1, by=by))
        assert support.label_names == {3: "label 3", 7: "label 7"} and len(support) == 5
    only = labelled_support_of_volumes(volume_pairs(tmp_path), [3], SliceChoice(slices=4, absent=0))
    assert only.values == (3,)


def test_what_a_window_leaves_blank_is_not_taken(folder):
    values = write(folder, "p1", ball() * 3)
    values[:, :, 9:14] = 5 * np.random.default_rng(0).random((*SHAPE[:2], 5))
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / "images" / "p1.nii.gz")
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=100, absent=0), normalise=Window(50, 200))
    assert min(i for name, i in places(support) if name == "p1") == 14


def test_the_seed_decides_on_slices_without_the_label(folder):
    def absent(seed):
        found = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=2, absent=6, seed=seed))
        return [name for name, label in zip(found.names, found.labels) if not label.any()]

    assert absent(0) == absent(0) and absent(0) != absent(1) and len(absent(0)) == 6


def test_bad_volumes_are_refused(folder):
    pairs = volume_pairs(folder)
    with pytest.raises(InputError, match=r"label 9 is in no slice of the volumes; they hold 3 \(label 3\)"):
        support_of_volumes(pairs, 9)
    with pytest.raises(InputError, match="no volumes are given"):
        support_of_volumes({}, 3)
    with pytest.raises(InputError, match="give each label once"):
        labelled_support_of_volumes(pairs, [3, "label 3"])
    with pytest.raises(InputError, match="axis is 'oblique'"):
        support_of_volumes(pairs, 3, SliceChoice("oblique"))
    with pytest.raises(InputError, match="no slice along axial holds a label and more than one value of intensity"):
        support_of_volumes(pairs, 3, normalise=Window(5000, 6000))
    write(folder, "p1", np.zeros(SHAPE))
    write(folder, "sub/p2", np.zeros(SHAPE))
    with pytest.raises(InputError, match="the label volumes are empty"):
        support_of_volumes(volume_pairs(folder), 3)


def test_folders_that_do_not_pair(folder, tmp_path):
    assert has_volumes(folder) and not has_volumes(tmp_path / "nothing")
    (folder / "labels" / "p1.nii.gz").unlink()
    with pytest.raises(InputError, match="1 image without a label of the same name, p1"):
        volume_pairs(folder)


@pytest.mark.parametrize("values, message", [
    ({"slices": 0}, "slices is 0; give an integer from 1"),
    ({"absent": -1}, "absent is -1"),
    ({"by": "best"}, "by is 'best'; accepted: area, even, similar"),
    ({"seed": True}, "seed is True"),
])
def test_choices_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        SliceChoice(**values)


def test_labels_that_slices_cannot_hold_are_named(tmp_path):
    labels = np.zeros(SHAPE)
    labels[5:9, 5:9, 5], labels[5:9, 5:9, 20] = 1, 2
    write(tmp_path, "p", labels)
    pairs = volume_pairs(tmp_path)
    with pytest.raises(InputError, match="slices is 1, but 2 labels need at least 2 slices"):
        labelled_support_of_volumes(pairs, choice=SliceChoice(slices=1))
    assert labelled_support_of_volumes(pairs, choice=SliceChoice(slices=2)).values == (1, 2)
    labels[5, 5:7, 12] = 1, 2  # both, of each but a little
    write(tmp_path, "p", labels)
    assert places(labelled_support_of_volumes(pairs, choice=SliceChoice(slices=1, absent=0))) == [("p", 12)]
    labels[5:9, 5:9, 1] = 7  # a blank slice
    write(tmp_path, "p", labels)
    with pytest.raises(InputError, match=r"no slice along axial .* holds the label 7 \(label 7\)"):
        labelled_support_of_volumes(pairs)
    assert labelled_support_of_volumes(pairs, [1, 2]).values == (1, 2)


def test_volumes_that_were_acquired_in_different_planes(tmp_path):
    write(tmp_path, "a", ball(), np.diag([1, 1, 4, 1]))
    write(tmp_path, "s", ball(), np.diag([4, 1, 1, 1]))
    with pytest.raises(InputError, match="different planes, a axial and s sagittal"):
        labelled_support_of_volumes(volume_pairs(tmp_path), choice=SliceChoice("acquired"))
    support = labelled_support_of_volumes(volume_pairs(tmp_path), choice=SliceChoice("coronal"))
    assert plane_of(support.names) == "coronal"
    assert plane_of(["a axial 3", "b sagittal 2"]) == plane_of(["case0"]) == plane_of([]) == ""


def test_hidden_files_are_no_volumes_and_pictures_beside_volumes_are_refused(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "._4.nii").write_bytes(b"x")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "images" / "4.png")
    assert not has_volumes(tmp_path)
    write(tmp_path, "p", ball())
    with pytest.raises(InputError, match=r"holds 1 volume, first p.nii.gz, and 1 picture, first 4.png"):
        has_volumes(tmp_path)


def test_slices_of_noise_are_taken_only_for_a_label_that_is_nowhere_else(folder):
    values = write(folder, "p1", ball() * 3)
    values[:, :, 9:14] = 5 * np.random.default_rng(0).random((*SHAPE[:2], 5))
    for name in ("p1", "sub/p2"):
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / "images" / f"{name}.nii.gz")
    pairs = volume_pairs(folder)
    support = support_of_volumes(pairs, 3, SliceChoice(slices=100, absent=100))
    assert {i for _, i in places(support)} == {*range(3, 9), *range(14, 30)}
    for name in ("p1", "sub/p2"):
        labels = nibabel.Nifti1Image(np.where(np.arange(SHAPE[2]) < 13, 3 * ball(), 0).astype(np.uint8),
                                     np.diag([1, 1, 2, 1]))
        nibabel.save(labels, folder / "labels" / f"{name}.nii.gz")
    assert {i for _, i in places(support_of_volumes(pairs, 3, SliceChoice(absent=0)))} == {*range(9, 13)}


def test_dim_slices_carry_their_share_of_their_volume(folder, tmp_path):
    values = write(folder, "p1", ball() * 3)
    (folder / "images" / "sub" / "p2.nii.gz").unlink()
    (folder / "labels" / "sub" / "p2.nii.gz").unlink()
    values[:, :, 24:] = 2 * np.arange(SHAPE[1])[:, None] % 40  # steps, no noise, of a fifth of the volume's range
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / "images" / "p1.nii.gz")
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=4, absent=40))
    low, high = intensity_range(values)
    dim = 38 / (LEAST_SHARE * (high - low))
    assert support.shares == pytest.approx([dim if i >= 24 else 1 for _, i in places(support)]) and dim < 0.9
    on_grid = support.on_grid((16, 16), "stretch")[:, 0].max(axis=(1, 2))
    assert all(on_grid[i] <= share + 1e-6 for i, share in enumerate(support.shares))
    support.save(tmp_path / "saved.npz")
    for again in (SupportSet.load(tmp_path / "saved.npz"), pickle.loads(pickle.dumps(support))):
        assert again.shares == support.shares and again.sha256 == support.sha256
    held = next(i for i, label in enumerate(support.labels) if label.any())
    assert support.subset([-1, held]).shares == (support.shares[-1], support.shares[held])
    assert replace(support, shares=None).sha256 != support.sha256
    window = support_of_volumes(volume_pairs(folder), 3, SliceChoice(absent=40), normalise=Window(0, 200))
    assert set(window.shares) == {1.0}, "a window says itself what is dim"


def pet(seed):
    """A body with a lesion, as bright as a body with hot slices at its end leaves it."""
    rng = np.random.default_rng(seed)
    x, y, z = np.mgrid[:48, :48, :16]
    lesion = (x - rng.integers(18, 30)) ** 2 + (y - rng.integers(18, 30)) ** 2 + (2 * (z - 8)) ** 2 < 81
    values = rng.normal(0.5, 0.1, x.shape) + 2 * ((x - 24) ** 2 + (y - 24) ** 2 < 441) + 3 * lesion
    values[:, :, 14:] += 60 * ((x - 24) ** 2 + (y - 30) ** 2 < 36)[:, :, 14:]
    return values.astype(np.float32), lesion


def test_a_target_in_dim_slices_is_not_lost(tmp_path, shipped):
    """As in a PET, where few hot slices make all others dim; the support decides for queries."""
    for name in ("p0", "p1", "p2"):
        for part, values in zip(("images", "labels"), pet(int(name[1]))):
            (tmp_path / part).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), tmp_path / part / f"{name}.nii.gz")
    support = support_of_volumes(volume_pairs(tmp_path), 1, SliceChoice(axis="axial", slices=12))
    values, lesion = pet(7)
    limits, seen = intensity_range(values), np.flatnonzero(lesion.any(axis=(0, 1)))
    assert all(share_of(values[:, :, i], "minmax", limits) < 0.5 for i in seen), "they are dim"

    def found(support):
        with shipped.prepare(support) as task:
            masks = [task.predict(values[:, :, i].T[::-1, ::-1], volume_range=limits).mask for i in seen]
        return dice(np.stack(masks), np.stack([lesion[:, :, i].T[::-1, ::-1] for i in seen]))

    plain = found(replace(support, shares=None))
    assert found(support) >= plain - 0.02 and plain > 0.8
    assert found(replace(support, shares=(1.0,) * len(support))) < plain - 0.02, "queries alone were dimmed before"


def test_where_no_slice_is_without_all_labels_some_lack_one(tmp_path):
    """Label 1 is in all slices that are not blank, label 3 in some: absence of 3 is still known."""
    everywhere = np.zeros(SHAPE, int)
    everywhere[:3] = 1
    write(tmp_path, "p", np.where(ball(), 3, everywhere))
    support = labelled_support_of_volumes(volume_pairs(tmp_path), None, SliceChoice(slices=4, absent=2))
    assert len(set(support.names)) == len(support) == 6
    assert sum(not (label == 3).any() for label in support.labels) >= 2
    write(tmp_path, "q", ball() * 3, blank=slice(None))
    found = places(labelled_support_of_volumes(volume_pairs(tmp_path), [3], SliceChoice(slices=4, absent=3)))
    assert len(found) == 7, "another volume gives what one does not have"
