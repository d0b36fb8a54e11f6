"""NIfTI in and out: what is read, what is refused, and that answers land on the same voxels."""

from __future__ import annotations

import gzip
import mmap
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import nibabel
from hypothesis import HealthCheck, given, settings

from universeg_rt.errors import InputError, OutputError
from universeg_rt.volumes.reading import read_labels, read_volume
from universeg_rt.volumes.writing import labels_ending, write_labels, write_map

from . import made
from .made import SHAPE, write_nifti

AFFINE = made.affine_of(made.rotation((0.9, 0.1, -0.2, 0.05)))
VALUES = np.random.default_rng(0).integers(-500, 900, SHAPE).astype(np.int16)



def is_mapped(array) -> bool:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array is not None


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "i4", "f4", ">f8", "u8"])
def test_values_and_affine_are_those_of_nibabel_and_take_no_memory(tmp_path, ending, dtype):
    path = write_nifti(tmp_path / f"v{ending}", np.abs(VALUES).astype(dtype), AFFINE)
    volume, image = read_volume(path), nibabel.load(path)
    assert np.array_equal(volume.values, np.asanyarray(image.dataobj)) and is_mapped(volume.values)
    assert np.array_equal(volume.geometry.affine, image.affine) and volume.kind == "nifti" and not volume.notes
    assert np.allclose(volume.geometry.spacing, image.header.get_zooms())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_scaled_values_are_rescaled(tmp_path, ending):
    path = write_nifti(tmp_path / f"v{ending}", VALUES, AFFINE)
    data = bytearray(gzip.decompress(path.read_bytes()) if ending == ".nii.gz" else path.read_bytes())
    data[112:120] = np.array([0.5, -1024], "<f4").tobytes()
    path.write_bytes(gzip.compress(data) if ending == ".nii.gz" else data)
    volume = read_volume(path)
    assert volume.values.dtype == np.float32 and is_mapped(volume.values)
    assert np.array_equal(volume.values, nibabel.load(path).get_fdata())


@pytest.mark.parametrize("name", ["anatomical.nii", "reoriented_anat_moved.nii", "standard.nii.gz"])
def test_files_of_nibabel_itself(name):
    path = Path(nibabel.__file__).parent / "tests" / "data" / name
    if not path.exists():
        pytest.skip("nibabel came without its test files")
    volume, image = read_volume(path), nibabel.load(path)
    assert np.array_equal(volume.values, image.get_fdata()) and np.allclose(volume.geometry.affine, image.affine)


def test_one_time_of_several_is_read_by_its_index(tmp_path):
    four = np.stack([VALUES, VALUES + 1, VALUES + 2], -1)
    for ending in (".nii", ".nii.gz"):
        path = write_nifti(tmp_path / f"v{ending}", four, AFFINE)
        assert all(np.array_equal(read_volume(path, time=t).values, four[..., t]) for t in range(3))
        with pytest.raises(InputError, match=r"holds 3 volumes, .*; say which one with time, 0 to 2"):
            read_volume(path)
        for wrong in (3, -1, True, 1.0, "1"):
            with pytest.raises(InputError, match="holds the times 0 to 2"):
                read_volume(path, time=wrong)
    assert np.array_equal(read_volume(write_nifti(tmp_path / "one.nii", four[..., :1], AFFINE)).values, VALUES)
    assert read_volume(write_nifti(tmp_path / "flat.nii", VALUES[..., 0], AFFINE)).values.shape == (*SHAPE[:2], 1)
    with pytest.raises(InputError, match=r"shape \(4, 5, 6, 2, 2\); accepted: three axes"):
        read_volume(write_nifti(tmp_path / "five.nii", np.zeros((*SHAPE, 2, 2), np.uint8), AFFINE))


def test_what_is_no_volume_of_numbers_is_refused(tmp_path):
    holes = VALUES.astype(np.float32)
    holes[0, 0, :2] = np.nan, np.inf
    with pytest.raises(InputError, match="2 NaN or infinite values"):
        read_volume(write_nifti(tmp_path / "nan.nii.gz", holes, AFFINE))
    colours = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="holds colours; accepted: real numbers"):
        read_volume(write_nifti(tmp_path / "rgb.nii", colours, AFFINE))
    with pytest.raises(InputError, match="values of type complex64"):
        read_volume(write_nifti(tmp_path / "complex.nii", VALUES.astype("c8"), AFFINE))
    flat = AFFINE.copy()
    flat[:3, 1] = flat[:3, 0]
    path = write_nifti(tmp_path / "flat.nii", VALUES, AFFINE)
    data = bytearray(path.read_bytes())
    data[280:328] = flat[:3].astype("<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(InputError, match="affine that no voxel has a place by"):
        read_volume(path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_broken_files_are_refused(tmp_path, ending):
    path = write_nifti(tmp_path / f"v{ending}", VALUES, AFFINE)
    whole = path.read_bytes()
    for broken in (b"", whole[:2], whole[:200], whole[:-20], b"\x00" * 500, b"not an image" * 50):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="cannot be read as a whole NIfTI volume"):
            read_volume(path)
    with pytest.raises(InputError, match="does not exist"):
        read_volume(tmp_path / f"none{ending}")
    with pytest.raises(InputError, match="series is 'x', but"):
        read_volume(path, series="x")


def test_a_damaged_compressed_file_is_found_by_its_checksum(tmp_path):
    path = write_nifti(tmp_path / "v.nii.gz", VALUES, AFFINE)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="CRC check failed"):
        read_volume(path)


def test_what_a_header_leaves_open_is_noted(tmp_path):
    path = write_nifti(tmp_path / "v.nii", VALUES, AFFINE, qform_code=0, sform_code=0)
    nibabel.save(nibabel.Nifti1Image(VALUES, None), path)
    assert "does not say how the patient lies" in read_volume(path).notes[0]
    both = nibabel.Nifti1Image(VALUES, AFFINE)
    both.set_qform(made.affine_of(np.eye(3)), 1)
    nibabel.save(both, path)
    assert read_volume(path).notes == ("its sform and qform differ; the sform is used",)
    metres = nibabel.Nifti1Image(VALUES, AFFINE)
    metres.header.set_xyzt_units("meter")
    nibabel.save(metres, path)
    assert np.allclose(read_volume(path).geometry.affine[:3], 1000 * AFFINE[:3])


def test_the_acquired_axis_is_the_header_s_or_that_of_the_greatest_spacing(tmp_path):
    for zooms, expected in (((1, 1, 1), 2), ((1, 3, 1), 1), ((3, 1, 1), 0), ((1, 1, 3), 2)):
        assert read_volume(write_nifti(tmp_path / "v.nii", VALUES, made.affine_of(np.eye(3), zooms))
                           ).acquired == expected
    image = nibabel.Nifti1Image(VALUES, AFFINE)
    image.header.set_dim_info(slice=0)
    nibabel.save(image, tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii").acquired == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made.quaternions, made.zooms, made.orientations)
def test_a_mask_lands_on_the_same_voxels(tmp_path, quaternion, zooms, turn):
    affine = made.affine_of(made.rotation(quaternion) @ turn, zooms)
    path = write_nifti(tmp_path / "image.nii", VALUES, affine)
    volume, mask = read_volume(path), (VALUES > 300)
    write_labels(tmp_path / "mask.nii.gz", mask, {1: "high"}, volume)
    given_, written = nibabel.load(path), nibabel.load(tmp_path / "mask.nii.gz")
    assert np.array_equal(given_.affine, written.affine) and np.array_equal(np.asanyarray(written.dataobj), mask)
    for form in ("get_sform", "get_qform"):
        (one, code), (other, other_code) = (getattr(i, form)(coded=True) for i in (given_, written))
        assert code == other_code and (one is None or np.array_equal(one, other))
    assert np.array_equal(read_labels(tmp_path / "mask.nii.gz", volume).values, mask)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_label_maps_keep_the_header_s_place_and_nothing_of_the_patient(tmp_path, kind, ending):
    image = kind(VALUES.astype(">i2"), None, kind.header_class(endianness=">"))
    image.set_sform(AFFINE, "mni")
    image.set_qform(made.affine_of(made.rotation((1, 0.1, 0, 0))), "scanner")
    image.header.set_xyzt_units("micron", "sec")
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        if field in image.header:
            image.header[field] = made.MARKER
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", made.MARKER.encode()))
    nibabel.save(image, tmp_path / "image.nii")
    volume, labels = read_volume(tmp_path / "image.nii"), np.where(VALUES > 0, 300, 0)
    write_labels(tmp_path / f"labels{ending}", labels, {300: "some"}, volume)
    write_map(tmp_path / f"map{ending}", VALUES / 7, volume)
    for name, dtype, expected in ((f"labels{ending}", np.uint16, labels), (f"map{ending}", np.float32, VALUES / 7)):
        data = (tmp_path / name).read_bytes()
        assert made.MARKER.encode() not in (gzip.decompress(data) if ending == ".nii.gz" else data)
        out = nibabel.load(tmp_path / name)
        assert isinstance(out, kind) and out.header.get_data_dtype() == dtype and out.shape == SHAPE
        assert np.array_equal(np.asanyarray(out.dataobj), expected.astype(dtype))
        assert out.header.get_xyzt_units() == ("micron", "sec")
        for form in ("sform", "qform"):
            given_form, code = getattr(nibabel.load(tmp_path / "image.nii"), f"get_{form}")(coded=True)
            form, out_code = getattr(out, f"get_{form}")(coded=True)
            assert np.array_equal(form, given_form) and code == out_code


def test_label_maps_take_the_smallest_type_and_may_be_empty(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "image.nii", VALUES, AFFINE))
    assert labels_ending(volume) == ".nii.gz"
    for most, dtype in ((0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2")):
        labels = np.zeros(SHAPE, np.int64)
        labels[1, 1, 1] = most
        write_labels(tmp_path / "l.nii", labels, {}, volume)
        assert nibabel.load(tmp_path / "l.nii").get_data_dtype() == np.dtype(dtype)
        assert np.array_equal(read_labels(tmp_path / "l.nii", volume).values, labels)
    for wrong, message in ((np.full(SHAPE, -1), "-1 to 0; accepted: 0 to 65535"), (np.full(SHAPE, 70000), "70000"),
                           (np.zeros(SHAPE), "type float64; accepted: integers or bool"),
                           (np.zeros((2, 2, 2), int), "they must be the same")):
        with pytest.raises(InputError, match=message):
            write_labels(tmp_path / "wrong.nii", wrong, {}, volume)
    with pytest.raises(InputError, match=r"accepted: \.nii, \.nii\.gz, \.tif, \.tiff$"):
        write_labels(tmp_path / "wrong.dcm", np.zeros(SHAPE, int), {}, volume)
    with pytest.raises(OutputError):
        write_labels(tmp_path / "none" / "l.nii", np.zeros(SHAPE, int), {}, volume)
    assert not list(tmp_path.glob("wrong*"))


def test_labels_are_whole_numbers_on_the_volume_s_voxels(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "image.nii", VALUES, AFFINE))
    labels = np.zeros(SHAPE)
    labels[0], labels[1] = 1, 255
    read = read_labels(write_nifti(tmp_path / "l.nii.gz", labels, AFFINE), volume)
    assert read.values.dtype == np.uint8 and read.names == {1: "label 1", 255: "label 255"}
    assert np.array_equal(read.values, labels)
    for wrong, message in ((labels / 2, "holds 0.5; give whole numbers"), (-labels, "holds -255 to 0"),
                           (labels * 300, "holds 0 to 76500")):
        with pytest.raises(InputError, match=message):
            read_labels(write_nifti(tmp_path / "wrong.nii", wrong, AFFINE), volume)
    moved = AFFINE.copy()
    moved[0, 3] += 0.1
    with pytest.raises(InputError, match=r"does not lie on the voxels of .*: corners up to 0\.1 mm apart; resample"):
        read_labels(write_nifti(tmp_path / "moved.nii", labels, moved), volume)
    with pytest.raises(InputError, match=r"shape \(4, 5, 5\), not \(4, 5, 6\)"):
        read_labels(write_nifti(tmp_path / "short.nii", labels[..., 1:], AFFINE), volume)


def test_labels_whose_axes_run_otherwise_are_put_in_the_volume_s_order(tmp_path):
    volume = read_volume(write_nifti(tmp_path / "image.nii", VALUES, AFFINE))
    labels = (VALUES > 0) * np.uint8(3)
    upright = nibabel.as_closest_canonical(nibabel.Nifti1Image(labels, AFFINE))
    for turn in made.SIGNED_PERMUTATIONS:
        codes = nibabel.orientations.axcodes2ornt(nibabel.aff2axcodes(made.affine_of(turn)))
        nibabel.save(upright.as_reoriented(codes), tmp_path / "l.nii")
        assert np.array_equal(read_labels(tmp_path / "l.nii", volume).values, labels)
