"""DICOM Segmentations: read by readers that are not ours, by our own, and refused where they lie elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="volumes need highdicom: pip install '.[medical]'")
import highdicom
import nibabel
import pydicom
from pydicom.data import get_testdata_file

from universeg_rt.errors import InputError
from universeg_rt.volumes.reading import find_volumes, read_labels, read_volume
from universeg_rt.volumes.segmentation import ABNORMAL, STRUCTURES, SYNONYMS, code_of
from universeg_rt.volumes.writing import labels_ending, write_labels, write_map

from . import made
from .made import write_series
from .test_dicom import dirtests, extra

NAMES = {2: "left kidney", 5: "liver tumour", 9: "what nobody has coded"}
OBLIQUE = made.rotation((0.9, 0.2, -0.3, 0.1))


def labels_of(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 0, 0, 2, 5], shape).astype(np.uint8)


def places_of(marked: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Millimetres (n,3) of marked voxels, in an order of their own."""
    found = nibabel.affines.apply_affine(affine, np.argwhere(marked)).reshape(-1, 3)
    return found[np.lexsort(found.round(2).T)]


def by_dcmqi(path: Path, folder: Path) -> dict[str, nibabel.Nifti1Image]:
    """The segments of a file by their labels, as dcmqi, an ITK reader, writes them to NIfTI."""
    package = pytest.importorskip("dcmqi", reason="needs the package dcmqi: pip install '.[test]'")
    program = Path(package.__file__).parent / "bin" / "segimage2itkimage"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    subprocess.run([program, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nii"], check=True,
                   capture_output=True)
    meta = json.loads((folder / "meta.json").read_text())
    return {one["SegmentLabel"]: nibabel.load(folder / f"{one['labelID']}.nii.gz")
            for group in meta["segmentAttributes"] for one in group}


@pytest.mark.parametrize("turn", [
    np.eye(3), np.diag([-1, 1, -1]), np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]]),
    np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0.0]]), OBLIQUE, OBLIQUE @ np.diag([-1, -1, 1])
], ids=["axial", "flipped", "sagittal", "coronal", "oblique", "oblique flipped"])
def test_dcmqi_finds_every_label_on_its_voxels(tmp_path, turn):
    volume = read_volume(write_series(tmp_path / "ct", turn=turn))
    labels = labels_of(volume.geometry.shape)
    write_labels(tmp_path / "seg.dcm", labels, NAMES, volume)
    found = by_dcmqi(tmp_path / "seg.dcm", tmp_path / "itk")
    assert set(found) == set(NAMES.values())
    for value, name in NAMES.items():
        theirs = places_of(np.asanyarray(found[name].dataobj) > 0, found[name].affine)
        ours = places_of(labels == value, volume.geometry.affine)
        assert theirs.shape == ours.shape and np.allclose(theirs, ours, atol=1e-3)
        assert np.prod(found[name].shape) == labels.size  # no frame is left out
    read = read_labels(tmp_path / "seg.dcm", volume)
    assert read.names == dict(enumerate(NAMES.values(), 1))
    assert np.array_equal(read.values, np.select([labels == value for value in NAMES], [1, 2, 3]))


def test_enhanced_files_are_segmented_too(tmp_path):
    volume = read_volume(extra("eCT_Supplemental.dcm"))
    labels = (volume.values > 40).astype(np.uint8)
    write_labels(tmp_path / "seg.dcm", labels, {1: "brain"}, volume)
    (image,) = by_dcmqi(tmp_path / "seg.dcm", tmp_path / "itk").values()
    assert np.allclose(places_of(np.asanyarray(image.dataobj) > 0, image.affine),
                       places_of(labels > 0, volume.geometry.affine), atol=1e-3)


def test_a_segmentation_references_its_series_and_is_valid(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct"))
    write_labels(tmp_path / "seg.dcm", labels_of(volume.geometry.shape), NAMES, volume)
    made_of, seg = [pydicom.dcmread(f) for f in volume.files], pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.SegmentationType == "BINARY" and seg.NumberOfFrames == 3 * 4
    assert seg.FrameOfReferenceUID == made_of[0].FrameOfReferenceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == made_of[0].SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence} == {
        one.SOPInstanceUID for one in made_of}
    kidney, tumour, other = seg.SegmentSequence
    assert kidney.SegmentLabel == "left kidney" and kidney.SegmentAlgorithmType == "AUTOMATIC"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeValue == "64033007"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert side.CodeMeaning == "Left" and side.CodingSchemeDesignator == "SCT"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Morphologically Abnormal Structure"
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert other.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt install dicom3tools")
    said = subprocess.run(["dciodvfy", tmp_path / "seg.dcm"], capture_output=True, text=True)
    assert "Error" not in said.stderr, said.stderr


def test_an_empty_label_map_is_written_whole(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct"))
    for names in ({1: "liver"}, {}):
        write_labels(tmp_path / "seg.dcm", np.zeros(volume.geometry.shape, bool), names, volume)
        read = read_labels(tmp_path / "seg.dcm", volume)
        assert not read.values.any() and read.names == {1: names.get(1, "label 1")}
        assert pydicom.dcmread(tmp_path / "seg.dcm").NumberOfFrames == 4


@pytest.mark.parametrize("name", ["77654033/CR1/6154", "77654033/CR3/6278"])
def test_a_radiograph_without_a_place_is_segmented_by_reference(tmp_path, name):
    volume = read_volume(dirtests(name))
    assert labels_ending(volume) == ".dcm"
    labels = labels_of(volume.geometry.shape)
    write_labels(tmp_path / "seg.dcm", labels, {2: "lung", 5: "heart"}, volume)
    read = read_labels(tmp_path / "seg.dcm", volume)
    assert read.names == {1: "lung", 2: "heart"}
    assert np.array_equal(read.values, np.select([labels == 2, labels == 5], [1, 2]))
    with pytest.raises(InputError, match="does not segment"):
        read_labels(tmp_path / "seg.dcm", read_volume(dirtests("77654033/CR2/6247")))


def test_without_a_frame_of_reference_nifti_or_tiff_is_written(tmp_path):
    volume = read_volume(extra("693_UNCR.dcm"))
    assert labels_ending(volume) == ".nii.gz" and labels_ending(read_volume(extra("emri_small.dcm"))) == ".tif"
    labels = labels_of(volume.geometry.shape)
    with pytest.raises(InputError, match=r"needs images of one frame of reference; .* write NIfTI"):
        write_labels(tmp_path / "seg.dcm", labels, {}, volume)
    write_labels(tmp_path / "seg.nii.gz", labels, {}, volume)
    assert np.array_equal(read_labels(tmp_path / "seg.nii.gz", volume).values, labels)


def test_nifti_beside_dicom_lies_in_the_same_place(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", turn=OBLIQUE))
    labels = labels_of(volume.geometry.shape)
    write_labels(tmp_path / "l.nii.gz", labels, {}, volume)
    write_map(tmp_path / "p.nii.gz", labels / 5, volume)
    for name, expected in (("l.nii.gz", labels), ("p.nii.gz", (labels / 5).astype(np.float32))):
        image = nibabel.load(tmp_path / name)
        assert np.array_equal(np.asanyarray(image.dataobj), expected)
        assert np.allclose(image.affine, volume.geometry.affine, atol=1e-5)
        assert image.header["sform_code"] == image.header["qform_code"] == 1


def test_frames_that_were_left_out_are_background(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct", turn=OBLIQUE))
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[2, 1:3, 2:4] = 1
    geometry = volume.header.geometry
    images = [pydicom.dcmread(file) for file in volume.files]
    description = highdicom.seg.SegmentDescription(1, "liver", *code_of("liver")[:2], "MANUAL")
    for kind in ("BINARY", "LABELMAP"):
        highdicom.seg.Segmentation(
            images, highdicom.Volume(labels, geometry.affine, "PATIENT", geometry.frame_of_reference_uid), kind,
            [description], highdicom.UID(), 1, highdicom.UID(), 1, "m", "m", "1", "1").save_as(tmp_path / "seg.dcm")
        assert np.array_equal(read_labels(tmp_path / "seg.dcm", volume).values, labels)


def test_segmentations_of_something_else_are_refused(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct"))
    other = read_volume(write_series(tmp_path / "other"))
    labels = np.ones(volume.geometry.shape, np.uint8)
    write_labels(tmp_path / "seg.dcm", labels, NAMES | {1: "all"}, volume)
    with pytest.raises(InputError, match="another frame of reference"):
        read_labels(tmp_path / "seg.dcm", other)
    finer = made.write_nifti(tmp_path / "finer.nii", np.zeros((4, 10, 12), np.uint8),
                             volume.geometry.affine @ np.diag([1, 0.5, 0.5, 1]))
    with pytest.raises(InputError, match="does not lie on the voxels"):
        read_labels(tmp_path / "seg.dcm", read_volume(finer))
    part = made.write_nifti(tmp_path / "part.nii", np.zeros((2, 5, 6), np.uint8), volume.geometry.affine)
    with pytest.raises(InputError, match="marks voxels outside"):
        read_labels(tmp_path / "seg.dcm", read_volume(part))
    with pytest.raises(InputError, match="is a DICOM Segmentation, not an image; it is read as labels"):
        read_volume(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match="does not lie on the voxels of .*: shape"):
        read_labels(get_testdata_file("CT_small.dcm"), volume)
    same = made.write_nifti(tmp_path / "same.nii", np.zeros(labels.shape, np.uint8), volume.geometry.affine)
    assert np.array_equal(read_labels(tmp_path / "seg.dcm", read_volume(same)).values, labels)


def test_segmentations_are_found_beside_each_other(tmp_path):
    volume = read_volume(write_series(tmp_path / "ct"))
    (tmp_path / "labels").mkdir()
    for name in ("p1", "p2"):
        write_labels(tmp_path / "labels" / f"{name}.dcm", np.ones(volume.geometry.shape, bool), {}, volume)
    assert list(find_volumes(tmp_path / "labels")) == ["p1", "p2"]


def test_names_are_coded_where_the_dictionary_has_them():
    for keyword in (*STRUCTURES, *ABNORMAL, *SYNONYMS.values()):
        category, kind, side = code_of(keyword)
        assert kind.scheme_designator == "SCT" and side is None and kind.meaning != "Tissue"
        assert category.meaning == ("Morphologically Abnormal Structure" if keyword in ABNORMAL
                                    else "Anatomical Structure")
    for name, meaning, side in (("right_lung", "Lung", "Right"), ("Kidneys", "Kidney", None), ("CSF", None, None),
                                ("left atrium", "Left atrium", None), ("tumours of the lung", "Tumor", None),
                                ("inferior vena cava", "Inferior vena cava", None), ("label 3", "Tissue", None),
                                ("", "Tissue", None)):
        _, kind, found = code_of(name)
        assert meaning in (None, kind.meaning) and (None if found is None else found.meaning) == side
