"""Readers of real tasks and their splits: what is read is what was written, and bad files are named."""

from __future__ import annotations

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
yaml = pytest.importorskip("yaml", reason="pyyaml is not installed: pip install '.[train]'")

from universeg_rt.errors import InputError
from universeg_rt.training.tasks import tasks
from universeg_rt.training.tasks.readers import load_folder, load_nifti, squared
from universeg_rt.training.tasks.tasks import Task, load_npz, split_subjects, subjects_of

pytestmark = pytest.mark.torch


def arrays(count=10, size=16, seed=0):
    random = np.random.default_rng(seed)
    labels = np.zeros((count, size, size), np.uint8)
    labels[:, 4:9, 5:12] = 1
    ids = np.array([f"p{i // 2}_{i}" for i in range(count)])
    return random.integers(0, 256, (count, size, size), dtype=np.uint8), labels, ids


def write(path, **changes):
    images, labels, ids = arrays()
    values = {"images": images, "labels": labels, "ids": ids, **changes}
    np.savez(path, **{key: value for key, value in values.items() if value is not None})
    return path


def test_npz_gives_what_was_written(tmp_path):
    images, labels, _ = arrays()
    task = load_npz(write(tmp_path / "a.npz"), subject_pattern=r"^(p\d+)_", dataset="d")
    assert np.array_equal(task.images, images) and np.array_equal(task.labels, labels)
    assert list(task.subjects[:3]) == ["p0", "p0", "p1"] and task.name == "a" and task.dataset == "d"


@pytest.mark.parametrize("changes, message", [
    ({"labels": None}, "lacks labels"),
    ({"images": arrays()[0].astype(np.float32)}, "expected uint8"),
    ({"labels": arrays()[1].astype(np.float32)}, "expected integers"),
    ({"labels": arrays()[1].astype(np.int64) - 1}, "negative"),
    ({"labels": arrays()[1] * 3}, "other than 0 and 1"),
    ({"labels": arrays()[1].astype(np.int64) * 256}, "other than 0 and 1"),
    ({"labels": arrays()[1] * (np.arange(10) != 3)[:, None, None].astype(np.uint8)}, "p1_3 are empty"),
    ({"labels": arrays()[1][:, :8]}, "expected"),
    ({"ids": arrays()[2][:4]}, "expected"),
])
def test_bad_npz_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load_npz(write(tmp_path / "bad.npz", **changes))


def test_missing_and_damaged_npz_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_npz(tmp_path / "none.npz")
    path = write(tmp_path / "cut.npz")
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:cut])
        with pytest.raises(InputError, match="cannot be read as a whole .npz"):
            load_npz(path)
    np.savez(path, images=np.array([{}], dtype=object), labels=np.zeros(1), ids=np.zeros(1))
    with pytest.raises(InputError, match="cannot be read as a whole .npz"):
        load_npz(path)


def test_splits_are_by_subject_60_20_20_and_the_same_every_time():
    subjects = np.array([f"s{i // 3}" for i in range(300)])
    splits = split_subjects(subjects, "x")
    assert [len(splits[k]) for k in ("support", "dev", "test")] == [60, 20, 20]
    assert len(set(np.concatenate(list(splits.values())))) == 100
    again = split_subjects(subjects[::-1], "x")
    assert all(np.array_equal(splits[k], again[k]) for k in splits)
    assert not np.array_equal(splits["dev"], split_subjects(subjects, "y")["dev"])


def test_no_subject_is_in_two_splits_and_tasks_of_a_data_set_split_alike():
    images, labels, ids = arrays(20)
    first, second = (Task(n, images, labels, subjects_of(ids, r"^(p\d+)"), "d") for n in ("one", "two"))
    parts = [set(first.split(s).subjects) for s in ("support", "dev", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 10
    assert parts[2] == set(second.split("test").subjects)
    with pytest.raises(InputError, match="accepted: support, dev, test"):
        first.split("train")


def test_too_few_subjects_for_splits():
    with pytest.raises(InputError, match="2 subjects; splits by subject need at least 3"):
        split_subjects(np.array(["a", "b", "a"]), "t")


@pytest.mark.parametrize("pattern, message", [
    ("(", "no regular expression"), ("abc", "no group"), ("(a" + "a" * 200 + ")", "has 203 characters"),
    (r"((\d{999}){999}){999}", "repeats a part more than")])
def test_bad_subject_patterns(pattern, message):
    with pytest.raises(InputError, match=message):
        subjects_of(["a"], pattern)


def test_a_pattern_that_would_search_for_ever_is_refused(monkeypatch):
    monkeypatch.setattr(tasks, "PATTERN_SECONDS", 0.2)
    with pytest.raises(InputError, match="takes longer than 0.2 seconds"):
        subjects_of(["a" * 200 + f"!{i}" for i in range(50)], "^((a|aa)+)$")


def test_a_group_that_takes_no_part_gives_the_whole_name():
    assert list(subjects_of(["p1_x", "x"], r"(?:p(\d)_)?x")) == ["1", "x"]


def test_ids_of_a_task_file_are_a_list(tmp_path):
    images = np.ones((2, 4, 4), np.uint8)
    np.savez(tmp_path / "t.npz", images=images, labels=images, ids=np.array("a"))
    with pytest.raises(InputError, match=r"ids have the shape \(\)"):
        load_npz(tmp_path / "t.npz")


@pytest.fixture
def folders(tmp_path):
    """write(name, image, mask) writes a pair of pictures; load() reads them all."""
    from types import SimpleNamespace

    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()

    def write(name, image, mask):
        Image.fromarray(image).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")

    return SimpleNamespace(path=tmp_path, write=write,
                           load=lambda: load_folder(tmp_path / "images", tmp_path / "masks", "t", size=8))


def test_pipes_and_other_formats_under_the_name_of_an_image_are_refused(folders):
    grey = np.full((8, 8), 9, np.uint8)
    folders.write("a", grey, grey)
    (folders.path / "images" / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")
    with pytest.raises(InputError, match="cannot be read as an image"):
        folders.load()
    (folders.path / "images" / "a.png").unlink()
    os.mkfifo(folders.path / "images" / "a.png")
    with pytest.raises(InputError, match="is a pipe or a device"):
        folders.load()


def test_the_alpha_of_a_mask_is_no_label(folders):
    image, mask = np.full((8, 8), 9, np.uint8), np.zeros((8, 8, 4), np.uint8)
    mask[:4, :, :3], mask[..., 3] = 255, 255
    folders.write("a", image, mask)
    assert folders.load().labels.sum() == 32
    mask[0, 0, 3] = 0
    folders.write("a", image, mask)
    with pytest.raises(InputError, match="transparent pixels"):
        folders.load()


def test_images_of_16_bits_keep_their_contrast(folders):
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    folders.write("a", ramp, np.full((8, 8), 1, np.uint8))
    assert np.array_equal(folders.load().images[0], (ramp / 63000 * 255).round())


def test_folders_of_images_and_masks(tmp_path):
    from PIL import Image
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(3):
        Image.fromarray(np.full((40, 80), 50 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
        mask = np.zeros((40, 80), np.uint8)
        mask[10:30, 20:60] = 0 if i == 1 else 7
        Image.fromarray(mask).save(tmp_path / "masks" / f"{i}.png")
    task = load_folder(tmp_path / "images", tmp_path / "masks", "t", value=7)
    assert task.images.shape == (2, 128, 128) and list(task.subjects) == ["0", "2"]
    # Its aspect is kept: half of the square is filled.
    assert task.labels[1].mean() == pytest.approx(20 * 40 / 80**2, rel=0.05)
    assert task.labels[1][:32].sum() == 0 and task.images[1, 64, 64] == 100
    with pytest.raises(InputError, match="every mask is empty of the value 3"):
        load_folder(tmp_path / "images", tmp_path / "masks", "t", value=3)
    (tmp_path / "images" / "9.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="9 .1 in all. are in one"):
        load_folder(tmp_path / "images", tmp_path / "masks", "t")
    (tmp_path / "masks" / "9.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="9.png cannot be read"):
        load_folder(tmp_path / "images", tmp_path / "masks", "t")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "9.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "masks" / "9.png")
    with pytest.raises(InputError, match="must be equal"):
        load_folder(tmp_path / "images", tmp_path / "masks", "t")
    with pytest.raises(InputError, match="no folder"):
        load_folder(tmp_path / "nowhere", tmp_path / "masks", "t")


@pytest.fixture
def volumes(tmp_path):
    """Two subjects with two modalities. Label 1 is a box in the middle; label 2 is off the mid-slice of axis 0."""
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed: pip install nibabel")
    for subject in ("s1", "s2"):
        (tmp_path / subject).mkdir()
        marks = np.zeros((20, 30, 40), np.int16)
        marks[5:15, 10:20, 10:30] = 1
        marks[0:4, 12:18, 15:25] = 2
        random = np.random.default_rng(0)
        for name, data in (("t1", marks * 10.0 + random.random(marks.shape)), ("t2", 50.0 - marks), ("seg", marks)):
            nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), np.diag([2.0, 1.0, 1.0, 1.0])),
                         tmp_path / subject / f"{name}.nii.gz")
    return tmp_path


def test_nifti_mid_slices_by_modality_label_and_axis(volumes):
    modalities = {"t1": "{subject}/t1.nii.gz", "t2": "{subject}/t2.nii.gz"}
    made = load_nifti(volumes, modalities, "{subject}/seg.nii.gz", {"box": 1, "side": 2}, "d")
    tasks = {t.name: t for t in made}
    expected = {f"d_{m}_box_axis{a}" for m in ("t1", "t2") for a in range(3)}
    expected |= {f"d_{m}_side_axis{a}" for m in ("t1", "t2") for a in (1, 2)}
    assert set(tasks) == expected
    task = tasks["d_t1_box_axis0"]
    assert task.images.shape == (2, 128, 128) and list(task.subjects) == ["s1", "s2"]
    # The slice is 30 by 40 pixels of 1 mm: 96 by 128 pixels; the box 10 by 20 of them.
    assert task.labels[0].sum() == pytest.approx(10 * 20 * 3.2**2, rel=0.05)
    # Along axis 2 the first axis has 2 mm voxels: 40 mm by 30 mm.
    assert tasks["d_t1_box_axis2"].labels[0].sum() == pytest.approx(20 * 10 * 3.2**2, rel=0.05)
    inside, outside = (task.images[0][task.labels[0] == k].mean() for k in (1, 0))
    assert inside > outside + 100 and tasks["d_t2_box_axis0"].images[0][task.labels[0] == 1].mean() < 20


def test_bad_nifti_are_refused(volumes):
    segmentation, labels = "{subject}/seg.nii.gz", {"box": 1}
    with pytest.raises(InputError, match="no file under"):
        load_nifti(volumes, {"t1": "{subject}/t1.nii.gz"}, "{subject}/none.nii.gz", labels, "d")
    with pytest.raises(InputError, match="write {subject}"):
        load_nifti(volumes, {"t1": "t1.nii.gz"}, "seg.nii.gz", labels, "d")
    with pytest.raises(InputError, match="no mid-slice"):
        load_nifti(volumes, {"t1": "{subject}/t1.nii.gz"}, segmentation, {"none": 9}, "d")
    (volumes / "s2" / "t1.nii.gz").write_bytes((volumes / "s1" / "t1.nii.gz").read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read as a whole NIfTI"):
        load_nifti(volumes, {"t1": "{subject}/t1.nii.gz"}, segmentation, labels, "d")


def test_a_small_file_that_says_it_is_a_huge_volume_is_refused(volumes):
    import gzip

    path = volumes / "s2" / "t1.nii.gz"
    header = bytearray(gzip.decompress(path.read_bytes()))
    header[42:48] = np.array([2000, 2000, 100], "<i2").tobytes()
    path.write_bytes(gzip.compress(bytes(header[:400])))
    with pytest.raises(InputError, match=r"says its shape is \(2000, 2000, 100\)"):
        load_nifti(volumes, {"t1": "{subject}/t1.nii.gz"}, "{subject}/seg.nii.gz", {"box": 1}, "d")


@pytest.mark.parametrize("pattern", ["/{subject}/seg.nii.gz", "../{subject}/seg.nii.gz", "**/{subject}", "{subject}\0"])
def test_volumes_lie_below_the_data_folder(volumes, pattern):
    with pytest.raises(InputError, match="not one below the data folder"):
        load_nifti(volumes, {"t1": "{subject}/t1.nii.gz"}, pattern, {"box": 1}, "d")


def test_squared_keeps_aspect_and_spacing():
    image, label = np.ones((10, 20)), np.zeros((10, 20), bool)
    label[2:8, 5:15] = True
    pixels, mask = squared(image, label, 64)
    assert pixels.shape == mask.shape == (64, 64) and mask.sum() == pytest.approx(60 * 3.2**2, rel=0.06)
    assert squared(image, label, 64, (2.0, 1.0))[1].sum() == pytest.approx(60 * 3.2 * 6.4, rel=0.06)
    assert squared(image, label & False, 64)[1].sum() == 0
