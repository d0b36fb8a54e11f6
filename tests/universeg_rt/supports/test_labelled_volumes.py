"""Labels of volumes: masks of any two values, several values, names, other geometries."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="volumes need nibabel: pip install '.[medical]'")

from universeg_rt import InputError, SupportSet
from universeg_rt.answers.absence import ABSENT_BELOW, UNTOLD
from universeg_rt.imaging.normalisation import MINMAX
from universeg_rt.labelled import LabelledSupport
from universeg_rt.supports.volumes import SliceChoice, labelled_support_of_volumes, support_of_volumes, volume_pairs
from universeg_rt.volumes.reading import read_volume

from .made import SHAPE, ball, folder, places, write  # noqa: F401 (a fixture)


def test_a_label_of_another_geometry_is_refused(folder):
    nibabel.save(nibabel.Nifti1Image(ball().astype(np.uint8), np.diag([1, 1, 3, 1])), folder / "labels" / "p1.nii.gz")
    with pytest.raises(InputError, match="does not lie on the voxels"):
        support_of_volumes(volume_pairs(folder), 1)


def write_values(folder, name, values):
    """An image as `write` makes it, and a label file of these values and their type."""
    write(folder, name, ball())
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1])), folder / "labels" / f"{name}.nii.gz")


@pytest.mark.parametrize("low, high, value", [(1, 2, 2), (-1, 1, 1), (0, 0.5, 1), (0, 255, 255)])
def test_two_values_of_any_kind_are_a_mask(tmp_path, low, high, value):
    kind = np.float32 if high % 1 else np.int16
    for name in ("a", "b"):
        write_values(tmp_path, name, np.where(ball(), high, low).astype(kind))
    support = labelled_support_of_volumes(volume_pairs(tmp_path), choice=SliceChoice(slices=4, absent=1))
    assert support.label_names == {value: f"label {value}"}
    for (_, index), label in zip(places(support), support.labels):
        assert np.array_equal(label == value, ball()[::-1, ::-1, index].T)


def test_three_values_are_no_mask(tmp_path):
    write_values(tmp_path, "a", np.where(ball(), 2, 1).astype(np.uint8))
    write_values(tmp_path, "b", np.where(ball(), 2, 0).astype(np.uint8))
    assert labelled_support_of_volumes(volume_pairs(tmp_path)).values == (1, 2)
    write_values(tmp_path, "b", np.where(ball(), 2, -1).astype(np.int16))
    with pytest.raises(InputError, match="is no label map: it holds -1 to"):
        labelled_support_of_volumes(volume_pairs(tmp_path))


def test_one_time_of_the_images_that_have_several(folder):
    path = folder / "images" / "p1.nii.gz"
    values = np.asarray(nibabel.load(path).dataobj)
    expected = support_of_volumes(volume_pairs(folder), 3).sha256
    nibabel.save(nibabel.Nifti1Image(np.stack([values + 5 * ball(), values], 3), np.diag([1, 1, 2, 1])), path)
    with pytest.raises(InputError, match="say which one with time, 0 to 1"):
        support_of_volumes(volume_pairs(folder), 3)
    assert support_of_volumes(volume_pairs(folder), 3, time=1).sha256 == expected
    assert support_of_volumes(volume_pairs(folder), 3, time=0).sha256 != expected


def segmented(folder, name, labels, names):
    """A DICOM series of noise with its Segmentation, under these names by value."""
    pytest.importorskip("highdicom", reason="Segmentations need highdicom: pip install '.[medical]'")
    from universeg_rt.volumes.writing import write_labels

    from ..volumes.made import write_series

    write_series(folder / "images" / name, frames=len(labels), size=labels.shape[1:],
                 values=np.random.default_rng(0).integers(0, 50, labels.shape) + 200 * (labels > 0))
    (folder / "labels").mkdir(exist_ok=True)
    write_labels(folder / "labels" / f"{name}.dcm", labels, names, read_volume(folder / "images" / name))


def boxes(first, second):
    """Labels (slices, rows, columns): 80 pixels a slice of one, 60 of the other."""
    labels = np.zeros((6, 24, 20), np.uint8)
    labels[1:5, 5:13, 5:15], labels[1:5, 16:22, 5:15] = first, second
    return labels


def test_labels_of_segmentations_are_told_by_their_names(tmp_path):
    segmented(tmp_path, "a", boxes(1, 0), {1: "liver"})
    segmented(tmp_path, "b", boxes(2, 1), {1: "spleen", 2: "liver"})
    pairs = volume_pairs(tmp_path)
    support = labelled_support_of_volumes(pairs, choice=SliceChoice(absent=0))
    assert support.label_names == {1: "liver", 3: "spleen"}
    assert {int(mask.sum()) for mask in support.of("liver").labels} == {80}
    assert {int(mask.sum()) for mask in support.of("spleen").labels} == {0, 60}
    with pytest.raises(InputError, match="label 1 is 'liver' in a and 'spleen' in b; give the name"):
        labelled_support_of_volumes(pairs, [1])
    with pytest.raises(InputError, match=r"label 2 is in no slice .* hold 1 \(liver\), 3 \(spleen\)"):
        labelled_support_of_volumes(pairs, [2])
    segmented(tmp_path, "b", boxes(2, 1), {1: "spleen", 2: "kidney"})
    found = labelled_support_of_volumes(pairs, ["liver"], SliceChoice(absent=0))
    assert found.label_names == {1: "liver"} and {name[0] for name in found.names} == {"a"}
    assert labelled_support_of_volumes(pairs).label_names == {1: "liver", 2: "kidney", 3: "spleen"}


def test_labels_without_names_follow_the_value_of_those_with_names(tmp_path):
    segmented(tmp_path, "a", boxes(1, 2), {1: "liver", 2: "spleen"})
    segmented(tmp_path, "b", boxes(2, 1), {1: "spleen", 2: "liver"})
    (tmp_path / "labels" / "b.dcm").unlink()
    plain = nibabel.Nifti1Image(boxes(1, 5).transpose(2, 1, 0), like_series(tmp_path / "images" / "b"))
    nibabel.save(plain, tmp_path / "labels" / "b.nii.gz")
    support = labelled_support_of_volumes(volume_pairs(tmp_path))
    assert support.label_names == {1: "liver", 2: "spleen", 5: "label 5"}
    segmented(tmp_path, "c", boxes(2, 1), {1: "spleen", 2: "liver"})
    with pytest.raises(InputError, match="labels of b have no names, and 1 is 'liver' in a and 'spleen' in c"):
        labelled_support_of_volumes(volume_pairs(tmp_path))


def like_series(folder):
    """The affine of a NIfTI file (columns, rows, slices) on the voxels of a DICOM series (slices, rows, columns)."""
    return read_volume(folder).geometry.affine[:, [2, 1, 0, 3]]


def test_whole_volumes_tell_absence_by_looks_and_place(folder, tmp_path):
    """The ball lies in axial slices 9 to 19 of 30; entries are few of them, all with it."""
    support = support_of_volumes(volume_pairs(folder), 3, SliceChoice(slices=4, absent=0))
    assert all(label.any() for label in support.labels) and support.looks.of_volumes
    values, slices = write(tmp_path / "other", "p3", ball() * 3, seed=5), range(3, SHAPE[2])
    told = {i: support.looks.presence(values[:, :, i].T[::-1, ::-1], MINMAX, i / (SHAPE[2] - 1)) for i in slices}
    assert {i for i in slices if told[i] >= 0.5} >= {*range(11, 18)}
    assert all(told[i] < ABSENT_BELOW for i in (*range(3, 8), *range(21, 30)))
    support.save(tmp_path / "s.npz")
    for again in (SupportSet.from_npz(tmp_path / "s.npz"), support.subset([0]), pickle.loads(pickle.dumps(support)),
                  LabelledSupport.from_npz(tmp_path / "s.npz").of(3)):
        assert np.array_equal(again.looks.array, support.looks.array)
    assert replace(support, looks=None).sha256 != support.sha256
    everywhere = np.ones(SHAPE, int)
    everywhere[0] = 0
    write(tmp_path / "all", "p", np.where(ball(), 3, everywhere))
    found = labelled_support_of_volumes(volume_pairs(tmp_path / "all"), None, SliceChoice(absent=0))
    assert found.of(1).looks == UNTOLD and found.of(3).looks.tells, "what is everywhere is absent nowhere"
    assert pickle.loads(pickle.dumps(found)).sha256 == found.sha256


def test_labels_in_another_order_are_the_same_support(tmp_path):
    for name in ("p1", "p2"):
        write(tmp_path, name, np.where(ball(), 3, np.where(ball(4, (4, 4, 24)), 5, 0)))
    one, other = (labelled_support_of_volumes(volume_pairs(tmp_path), labels) for labels in ([3, 5], [5, 3]))
    assert one.names == other.names and list(one.looks) == list(other.looks) == [3, 5] and one.sha256 == other.sha256


def test_a_volume_in_which_nobody_marked_a_label_does_not_tell_its_absence(folder):
    alone = support_of_volumes(volume_pairs(folder), 3)
    write(folder, "p9", np.where(ball(4), 5, 0), seed=9)
    found = labelled_support_of_volumes(volume_pairs(folder))
    assert np.array_equal(found.of(3).looks.array, alone.looks.array)


def test_entries_of_a_volume_in_which_nobody_marked_a_label_do_not_tell_its_absence(segmenter, tmp_path):
    """Label 1 is in all slices of its volume, so only entries of the other one lack it."""
    whole = np.zeros(SHAPE, int)
    whole[4:8, 4:20] = 1
    write(tmp_path, "p1", np.where(ball(), 2, whole), blank=slice(0, 0))
    write(tmp_path, "p2", np.where(ball(), 2, 0), seed=1, blank=slice(0, 0))
    support = labelled_support_of_volumes(volume_pairs(tmp_path))
    assert not all(label.any() for label in support.of(1).labels)
    with segmenter.prepare_labels(support) as task:
        assert task.tasks["label 1"].looks is None and task.tasks["label 2"].looks.of_volumes
    support.of(1).save(tmp_path / "one.npz")
    assert SupportSet.from_npz(tmp_path / "one.npz").looks == UNTOLD
    assert UNTOLD.presence(support.images[0], MINMAX, 0.5) == 0.5


def test_a_label_in_few_slices_of_a_long_volume_is_seen(tmp_path):
    labels = np.zeros((24, 24, 500), np.uint8)
    labels[8:16, 8:16, 247:252] = 1  # between two of 64 slices
    for part, values in (("images", np.random.default_rng(0).normal(100, 10, labels.shape) + 80 * labels),
                         ("labels", labels)):
        (tmp_path / part).mkdir()
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), tmp_path / part / "p.nii.gz")
    support = support_of_volumes(volume_pairs(tmp_path), 1)
    values = np.asarray(nibabel.load(tmp_path / "images" / "p.nii.gz").dataobj)
    told = [support.looks.presence(values[:, :, i].T[::-1, ::-1], MINMAX, i / 499) for i in (20, 249, 480)]
    assert told[1] > 0.5 > max(told[0], told[2])
