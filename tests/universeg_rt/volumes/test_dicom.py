"""DICOM in: order, geometry, values, compressions, and what is said of series that are broken."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import pydicom
from hypothesis import HealthCheck, given, settings
from pydicom.data import get_testdata_file

from universeg_rt.errors import InputError
from universeg_rt.volumes.reading import read_volume

from . import made
from .made import write_series

TILT = np.array([[1, 0, 0], [0, 1, 0.3], [0, 0, 1.0]])


def dirtests(name: str) -> Path:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests" / name
    return path if path.exists() else pytest.skip("pydicom came without its test files")


def extra(name: str) -> Path:
    data = pytest.importorskip("data_store", reason="needs the package pydicom-data: pip install '.[test]'")
    return Path(data.__path__[0]) / "data" / name


def lps_of(frame: pydicom.Dataset, row: int, column: int) -> np.ndarray:
    """Where a pixel lies, by equation C.7.6.2.1-1 of the standard."""
    along, down = np.array(frame.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, frame.PixelSpacing)
    return np.array(frame.ImagePositionPatient, float) + along * between_columns * column + down * between_rows * row


def check_against_its_files(folder: Path) -> None:
    """Every voxel has the value that the file which lies there holds there."""
    volume = read_volume(folder)
    to_index = np.linalg.inv(volume.geometry.affine)
    for file in volume.files:
        frame = pydicom.dcmread(file)
        stored = frame.pixel_array.astype(float) * float(frame.RescaleSlope) + float(frame.RescaleIntercept)
        for row, column in ((0, 0), (0, frame.Columns - 1), (frame.Rows - 1, 0), (2, 3)):
            ras = lps_of(frame, row, column) * (-1, -1, 1)
            index = to_index @ (*ras, 1)
            assert np.allclose(index, index.round(), atol=1e-3)
            i, j, k = index[:3].round().astype(int)
            assert volume.values[i, j, k] == stored[row, column]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made.quaternions, made.orientations)
def test_voxels_lie_where_the_standard_says(tmp_path, quaternion, turn):
    turn = made.rotation(quaternion) @ turn
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    check_against_its_files(write_series(tmp_path / "s", turn=turn * [1, 1, np.linalg.det(turn)]))


def test_a_series_of_pydicom():
    volume = read_volume(dirtests("98892001/CT5N"))
    assert volume.geometry.shape == (5, 16, 16) and np.allclose(volume.geometry.spacing, (2.5, 0.488281, 0.488281))
    assert volume.modality == "CT" and volume.kind == "dicom" and volume.acquired == 0 and volume.notes == ()
    assert (volume.window.low, volume.window.high) == (-160, 240)
    check_against_its_files(dirtests("98892001/CT5N"))


def test_frames_are_rescaled_to_hounsfield_units_in_a_temporary_file(tmp_path):
    def rescale(one, index):
        one.RescaleIntercept, one.RescaleSlope = -1024, 2

    volume = read_volume(write_series(tmp_path, change=rescale))
    assert np.array_equal(np.sort(volume.values.ravel()), 2.0 * np.arange(120) - 1024)
    assert volume.values.dtype == np.float32
    assert isinstance(volume.values, np.memmap)


def test_each_frame_is_rescaled_by_its_own_slope_as_in_pet(tmp_path):
    def rescale(one, index):
        one.RescaleIntercept, one.RescaleSlope = 0, 1 + index

    check_against_its_files(write_series(tmp_path, change=rescale))


def test_inverted_greys_are_turned_over_with_their_window():
    volume = read_volume(dirtests("77654033/CR1/6154"))
    raw = pydicom.dcmread(dirtests("77654033/CR1/6154"))
    top = 2**raw.BitsStored - 1
    assert np.allclose(volume.values[0], (top - raw.pixel_array) * 0.684 + 200)
    ends = 0.684 * top + 400
    assert np.allclose((volume.window.low, volume.window.high), (ends - 3000, ends - 200))
    assert volume.geometry.affine is None and volume.geometry.shape == (1, 16, 16)
    assert "its greys are stored inverted and were turned over" in volume.notes


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
                                  "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_expb.dcm"])
def test_compressions_and_encodings_give_the_same_values(name):
    plain, packed = read_volume(get_testdata_file("MR_small.dcm")), read_volume(get_testdata_file(name))
    assert np.array_equal(plain.values, packed.values) and plain.values.dtype == packed.values.dtype
    assert np.array_equal(plain.geometry.affine, packed.geometry.affine)


@pytest.mark.parametrize("packed, plain", [("US1_J2KR.dcm", "US1_UNCR.dcm"), ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
                                           ("MR2_J2KR.dcm", "MR2_UNCR.dcm")])
def test_more_kinds_of_images_are_the_same_without_loss(packed, plain):
    one, other = read_volume(extra(packed)), read_volume(extra(plain))
    assert np.array_equal(one.values, other.values) and one.window == other.window


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_dcmtk.dcm"])
def test_jpeg_is_decoded(name):
    plain, packed = read_volume(extra("SC_rgb.dcm")), read_volume(get_testdata_file(name))
    assert np.abs(plain.values.astype(int) - packed.values).max() <= 2


@pytest.mark.parametrize("name", ["emri_small_RLE.dcm", "emri_small_big_endian.dcm", "emri_small_jpeg_2k_lossless.dcm",
                                  "emri_small_jpeg_ls_lossless.dcm"])
def test_frames_without_a_place_are_a_stack(name):
    plain, packed = read_volume(extra("emri_small.dcm")), read_volume(extra(name))
    assert plain.geometry.shape == (10, 64, 64) and plain.geometry.affine is None
    assert np.array_equal(plain.values, packed.values)
    assert np.array_equal(plain.values, pydicom.dcmread(extra("emri_small.dcm")).pixel_array)


def test_enhanced_frames_are_put_in_the_order_of_their_places():
    volume, file = read_volume(extra("eCT_Supplemental.dcm")), pydicom.dcmread(extra("eCT_Supplemental.dcm"))
    assert volume.geometry.shape == (2, 512, 512) and np.allclose(volume.geometry.spacing, (10, 0.388672, 0.388672))
    places = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in file.PerFrameFunctionalGroupsSequence]
    for place, pixels in zip(places, file.pixel_array):
        i, j, k, _ = np.linalg.inv(volume.geometry.affine) @ (-place[0], -place[1], place[2], 1)
        assert np.allclose((j, k), 0, atol=1e-4) and np.array_equal(volume.values[round(i)], pixels - 1024.0)


def test_colour_is_read_as_its_luminance():
    volume = read_volume(get_testdata_file("examples_rgb_color.dcm"))
    assert volume.values.dtype == np.uint8 and "colour was read as its luminance" in volume.notes


def drop_middle(one, index):
    return index != 2


def turn_one(one, index):
    if index == 2:
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def double(one, index):
    if index == 2:
        one.ImagePositionPatient = [-20, 30, 42]


def uneven(one, index):
    if index == 2:
        one.ImagePositionPatient = [-20, 30, 44.7]


def little_uneven(one, index):
    if index == 2:
        one.ImagePositionPatient = [-20, 30, 44.05]


def larger(one, index):
    if index == 2:
        one.Rows, one.PixelData = 7, bytes(84)


def other_spacing(one, index):
    if index == 2:
        one.PixelSpacing = [2, 2]


def other_frame(one, index):
    if index == 2:
        one.FrameOfReferenceUID = pydicom.uid.generate_uid()


def no_place(one, index):
    if index == 2:
        del one.ImagePositionPatient


def cut(one, index):
    if index == 2:
        one.PixelData = one.PixelData[:-10]


def skewed(one, index):
    one.ImageOrientationPatient = [1, 0, 0, 0.5, 0.8, 0]


@pytest.mark.parametrize("change, message", [
    (drop_middle, "missing slices: 1 of 4 places between its first and last are empty, 2.000 mm apart"),
    (turn_one, "mixed orientation: 1 of 4 images lie otherwise than the first"),
    (double, "1 of 4 images lie where another does: several times, echoes or a double export"),
    (uneven, "unequal distances between slices, 1.300 to 2.700 mm"),
    (larger, r"2 sizes \(5x6, 7x6\)"), (other_spacing, r"2 pixel spacings \(1.25 x 0.5, 2 x 2\)"),
    (other_frame, "2 frames of reference, which"), (no_place, "1 of 4 images do not say where they lie"),
    (cut, r"6-2\.dcm holds pixels that cannot be decoded, or fewer than its header says"),
    (skewed, "rows and columns are not at right angles"),
])
def test_broken_series_say_what_is_wrong(tmp_path, change, message):
    folder = write_series(tmp_path, change=change)
    (folder / "IM3").touch()
    empty = ".*; without a byte is IM3;" * (change is drop_middle)
    with pytest.raises(InputError, match=message + empty):
        read_volume(folder)


def test_a_tilted_gantry_is_told_with_its_angle(tmp_path):
    with pytest.raises(InputError, match=r"by 16\.7 degrees \(gantry tilt\); convert it with dcm2niix"):
        read_volume(write_series(tmp_path, turn=TILT))


def test_distances_that_differ_a_little_are_taken_as_equal_with_a_note(tmp_path):
    volume = read_volume(write_series(tmp_path, change=little_uneven))
    assert volume.notes == ("the distance between slices varies from 1.950 to 2.050 mm; it is taken as 2.000 mm",
                            "slices lie up to 0.05 mm from where equal distances put them")


def test_broken_series_of_pydicom():
    for name, message in (("77654033/CT2", "missing slices: 161 of 165"),
                          ("98892003/MR700", "mixed orientation: 6 of 7"),
                          ("98892001/CT2N", "2 localizer images of several planes")):
        with pytest.raises(InputError, match=message):
            read_volume(dirtests(name))
    with pytest.raises(InputError, match="MR_truncated.dcm holds pixels that cannot be decoded, or fewer"):
        read_volume(get_testdata_file("MR_truncated.dcm"))
    with pytest.raises(InputError, match=r"not an image \(RT Plan Storage\)"):
        read_volume(get_testdata_file("rtplan.dcm"))


def test_several_series_are_counted_and_chosen_by_number(tmp_path):
    write_series(tmp_path, frames=3, values=np.ones((3, 5, 6)))
    second = write_series(tmp_path / "other", frames=4, size=(6, 7), values=np.full((4, 6, 7), 2))
    for file in second.iterdir():
        file.rename(tmp_path / f"x{file.name}")
    second.rmdir()
    with pytest.raises(InputError, match=r"2 series \(1: 3 of 5x6 CT; 2: 4 of 6x7 CT\); say which one with series"):
        read_volume(tmp_path)
    assert (read_volume(tmp_path, series=1).values == 1).all() and (read_volume(tmp_path, series="2").values == 2).all()
    with pytest.raises(InputError, match="series is '3'; .* holds 1 to 2"):
        read_volume(tmp_path, series="3")
    with pytest.raises(InputError, match="is one file; leave it out"):
        read_volume(next(tmp_path.iterdir()), series=1)


def test_a_localizer_among_slices_and_other_files_are_left_out_with_a_note(tmp_path):
    def first_is_localizer(one, index):
        if index == 0:
            one.ImageType, one.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]

    write_series(tmp_path, change=first_is_localizer)
    shutil.copy(get_testdata_file("rtplan.dcm"), tmp_path)
    (tmp_path / "readme.txt").write_text("about")
    volume = read_volume(tmp_path)
    assert volume.geometry.shape == (3, 5, 6)
    assert volume.notes == ("2 files of its folder are not DICOM images and were left out",
                            "1 localizer images of the series were left out")


def test_one_slice_is_a_volume_with_a_note(tmp_path):
    assert read_volume(write_series(tmp_path, frames=1)).notes == ("one slice: its thickness is taken as 2 mm",)


def test_what_is_not_dicom_is_told(tmp_path):
    write_series(tmp_path)
    (tmp_path / "5.dcm").write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(InputError, match=r"5\.dcm is not DICOM; it may be encrypted, cut off, or of another kind"):
        read_volume(tmp_path)
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_volume(tmp_path / "..")
    for name in ("none", "none.dcm", "none.tif"):
        with pytest.raises(InputError, match="does not exist"):
            read_volume(tmp_path / name)


def test_a_compression_without_a_decoder_names_the_packages(monkeypatch):
    import pydicom.pixels

    missing = SimpleNamespace(is_available=False, missing_dependencies=["gdcm - requires gdcm>=3.0.10"])
    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: missing)
    with pytest.raises(InputError, match=r"as RLE Lossless; no decoder .* \(gdcm - requires gdcm>=3\.0\.10\): install"):
        read_volume(get_testdata_file("MR_small_RLE.dcm"))


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path):
    def huge(one, index):
        one.Rows = one.Columns = 60_000

    with pytest.raises(InputError, match="60000x60000; accepted: at most"):
        read_volume(write_series(tmp_path, frames=1, change=huge))
