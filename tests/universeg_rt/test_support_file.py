"""The .npz of a support: which label its masks mark is kept, and a file that does not say opens as before."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from universeg_rt import InputError, SupportSet
from universeg_rt.labelled import LabelledSupport
from universeg_rt.support_file import Label

from ..conftest import discs

LV = Label(3, "lv")


@pytest.fixture
def marked():
    images, labels = discs(4)
    maps = labels.astype(np.uint8) * 3
    maps[:, :4, :4] = 7
    return LabelledSupport.from_arrays(images, maps, label_names={3: "lv"})


def test_a_label_taken_of_several_is_known_and_kept(marked, tmp_path):
    support = marked.of("lv")
    assert support.label == support.subset([2, 0]).label == pickle.loads(pickle.dumps(support)).label == LV
    support.save(tmp_path / "s.npz")
    again = SupportSet.from_npz(tmp_path / "s.npz")
    assert again.label == LV and type(again.label.value) is int and again.sha256 == support.sha256
    maps = LabelledSupport.from_npz(tmp_path / "s.npz")
    assert maps.label_names == {3: "lv"} and maps.of(3).sha256 == support.sha256
    assert LabelledSupport.from_npz(tmp_path / "s.npz", label_names={3: "ventricle"}).label_names == {3: "ventricle"}


def test_entries_of_several_sizes_keep_it_too(tmp_path):
    sets = [discs(1, h, w, seed=h) for h, w in ((40, 40), (50, 30))]
    images, labels = ([arrays[i][0] for arrays in sets] for i in (0, 1))
    SupportSet.from_arrays(images, labels, label=LV).save(tmp_path / "s.npz")
    assert SupportSet.from_npz(tmp_path / "s.npz").label == LV


def test_a_file_without_a_label_opens_without_one(tmp_path):
    support = SupportSet.from_arrays(*discs(3))
    support.save(tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz") as file:
        assert set(file.files) == {"images", "labels", "names"}
    assert SupportSet.from_npz(tmp_path / "s.npz").label is None


@pytest.mark.parametrize("fields, message", [
    ({"label_value": np.array(0)}, "label_value is int64 0; expected an integer from 1 to 65535"),
    ({"label_value": np.array(2.5)}, "label_value is float64 2.5"), ({"label_value": np.array([3])}, "of shape .1,."),
    ({"label_value": np.array("3")}, "label_value is <U1"), ({"label_name": np.array("lv")}, "without label_value"),
    ({"label_value": np.array(3), "label_name": np.array(["lv"])}, "label_name is <U2 of shape .1,.; expected one"),
    ({"label_value": np.array(3), "label_name": np.array(" ")}, "not empty"),
])
def test_bad_fields_are_refused(tmp_path, fields, message):
    images, labels = discs(3)
    np.savez(tmp_path / "s.npz", images=images, labels=labels, **fields)
    with pytest.raises(InputError, match=message):
        SupportSet.from_npz(tmp_path / "s.npz")


def test_a_value_alone_has_the_usual_name_and_goes_with_masks_only(tmp_path):
    images, labels = discs(3)
    np.savez(tmp_path / "s.npz", images=images, labels=labels, label_value=np.array(9))
    assert SupportSet.from_npz(tmp_path / "s.npz").label == Label(9, "label 9")
    np.savez(tmp_path / "s.npz", images=images, labels=labels * 4, label_value=np.array(9))
    with pytest.raises(InputError, match="support label 0 is not binary"):
        LabelledSupport.from_npz(tmp_path / "s.npz")
