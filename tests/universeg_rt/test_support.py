"""SupportSet: from arrays, folders and files; what it refuses; its hash; and the ensemble drawn from it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from universeg_rt import Ensemble, InputError, OutputError, SupportSet

from ..conftest import damage, discs


def write_folder(folder, images, labels, suffix=".png"):
    for name, arrays in (("images", images), ("labels", labels)):
        (folder / name).mkdir(parents=True)
        for i, array in enumerate(arrays):
            Image.fromarray(np.asarray(array).astype(np.uint8) * (255 if name == "labels" else 1)).save(
                folder / name / f"case{i}{suffix if name == 'images' else '.png'}")
    return folder


def test_arrays_folder_and_npz_give_the_same_set(tmp_path):
    images, labels = discs(4)
    a = SupportSet.from_arrays(images, labels)
    b = SupportSet.load(write_folder(tmp_path / "folder", images, labels))
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    c = SupportSet.load(tmp_path / "plain.npz")
    a.save(tmp_path / "saved.npz")
    d = SupportSet.load(tmp_path / "saved.npz")
    assert a.sha256 == b.sha256 == c.sha256 == d.sha256 and len(d) == 4
    assert b.names == ("case0", "case1", "case2", "case3")


def test_entries_of_several_sizes_are_saved_and_hashed(tmp_path):
    sets = [discs(1, h, w, seed=h) for h, w in ((40, 40), (50, 30))]
    support = SupportSet.from_arrays([images[0] for images, _ in sets], [labels[0] for _, labels in sets], ["a", "b"])
    support.save(tmp_path / "s.npz")
    again = SupportSet.from_npz(tmp_path / "s.npz")
    assert again.sha256 == support.sha256 and again.names == ("a", "b")
    assert support.on_grid((16, 24), "pad").shape == (2, 2, 16, 24)


def test_the_hash_sees_images_labels_and_order():
    images, labels = discs(3)
    base = SupportSet.from_arrays(images, labels).sha256
    other = images.copy()
    other[1, 0, 0] ^= 1
    flipped = labels.copy()
    flipped[2, 0, 0] ^= True
    assert len({base, SupportSet.from_arrays(other, labels).sha256, SupportSet.from_arrays(images, flipped).sha256,
                SupportSet.from_arrays(images[::-1], labels[::-1]).sha256,
                SupportSet.from_arrays(images.astype(np.int32), labels).sha256}) == 5


def test_later_changes_to_the_arrays_do_not_reach_the_set():
    images, labels = discs(2)
    support = SupportSet.from_arrays(images, labels)
    before = support.sha256
    images[:] = 0
    labels[:] = False
    assert SupportSet.from_arrays(support.images, support.labels).sha256 == before
    with pytest.raises(ValueError):
        support.images[0][0, 0] = 1


@pytest.mark.parametrize("change, message", [
    (lambda i, m: (i, m[:-1]), "3 images but 2 labels"),
    (lambda i, m: (i[:0], m[:0]), "no entries"),
    (lambda i, m: (i[0], m[0]), r"single arrays \(H,W\)"),
    (lambda i, m: (i[..., None], m), "support image 0 has shape"),
    (lambda i, m: (i, m * 3), "support label 0 is not binary"),
    (lambda i, m: (i, np.zeros_like(m)), "empty in every entry"),
    (lambda i, m: (i * 0, m), "support image 0 is constant"),
    (lambda i, m: (np.where(i > 170, np.nan, i), m), "NaN"),
])
def test_bad_arrays_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        SupportSet.from_arrays(*change(*discs(3)))


def test_some_empty_labels_are_accepted():
    images, labels = discs(3)
    labels[1] = False
    assert len(SupportSet.from_arrays(images, labels)) == 3


def test_bad_folders_are_refused(tmp_path):
    images, labels = discs(2)
    with pytest.raises(InputError, match="no folder images/"):
        SupportSet.from_folder(tmp_path)
    folder = write_folder(tmp_path / "a", images, labels)
    (folder / "labels" / "case1.png").unlink()
    with pytest.raises(InputError, match="a: 1 image without a label of the same name, case1;"):
        SupportSet.from_folder(folder)
    (folder / "labels" / "case0.png").rename(folder / "labels" / "case_0.png")
    with pytest.raises(InputError, match="2 images without .*, first case0 and 1 label without .*, case_0;"):
        SupportSet.from_folder(folder)
    (folder / "labels" / "case_0.png").rename(folder / "labels" / "case0.png")
    (folder / "labels" / "case1.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="case1.png cannot be read"):
        SupportSet.from_folder(folder)


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "evil.npz", images=np.array([Evil()], dtype=object), labels=np.zeros(1))
    (tmp_path / "evil2.npz").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.npz", "evil2.npz"):
        with pytest.raises(InputError, match="cannot be read as a whole .npz of plain arrays"):
            SupportSet.from_npz(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_files_give_an_input_error_or_the_same_set(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "s.npz"
    support = SupportSet.from_arrays(*discs(2, 30, 30))
    support.save(path)
    path.write_bytes(damage(data, path.read_bytes()))
    try:
        assert len(SupportSet.from_npz(path)) == 2
    except InputError:
        pass


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        SupportSet.from_arrays(*discs(2)).save(tmp_path / "file" / "s.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_subset():
    support = SupportSet.from_arrays(*discs(4))
    assert support.subset([2, 0]).names == ("2", "0")
    with pytest.raises(InputError, match="out of range"):
        support.subset([4])


@given(st.integers(1, 40), st.integers(1, 60), st.integers(1, 5), st.integers(0, 10))
def test_drawing_with_replacement(available, size, members, seed):
    drawn = Ensemble(members, size, replacement=True, seed=seed).draw(available)
    assert len(drawn) == members
    for indices, weights in drawn:
        assert len(set(indices)) == len(indices) and indices.min() >= 0 and indices.max() < available
        counts = weights * size
        assert np.allclose(counts, counts.round()) and counts.round().sum() == size and (counts > 0.5).all()
    again = Ensemble(members, size, replacement=True, seed=seed).draw(available)
    assert all(np.array_equal(a, b) for one, two in zip(drawn, again) for a, b in zip(one, two))


def test_drawing_without_replacement():
    drawn = Ensemble(3, 8, seed=1).draw(10)
    assert all(len(set(i)) == 8 and np.allclose(w, 1 / 8) for i, w in drawn)
    assert len({tuple(i) for i, _ in drawn}) > 1, "members are drawn independently"
    ((indices, weights),) = Ensemble().draw(5)
    assert sorted(indices) == list(range(5)) and np.allclose(weights, 0.2)


@pytest.mark.parametrize("values, message", [
    ({"members": 0}, "members is 0; accepted: an integer from 1"),
    ({"members": 10**6}, "members"),
    ({"members": 2.0}, "members"),
    ({"support_size": 0}, "support_size is 0"),
    ({"support_size": -3}, "support_size"),
    ({"seed": -1}, "seed"),
    ({"replacement": 1}, "replacement"),
])
def test_ensemble_values_out_of_range(values, message):
    with pytest.raises(InputError, match=message):
        Ensemble(**values)


def test_more_entries_than_there_are():
    with pytest.raises(InputError, match="support_size is 9, but the support set has 4 entries; draw with replacement"):
        Ensemble(support_size=9).draw(4)


@pytest.mark.parametrize("names", [np.array("a"), np.array([1, 2]), np.array([["a"], ["b"]])])
def test_odd_names_in_a_file_are_refused(tmp_path, names):
    images, labels = discs(2)
    np.savez(tmp_path / "s.npz", images=images, labels=labels, names=names)
    with pytest.raises(InputError, match="expected texts, one for each entry"):
        SupportSet.from_npz(tmp_path / "s.npz")
