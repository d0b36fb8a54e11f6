"""DICOM Segmentations in and out, by highdicom: label maps on the voxels of a series, with coded names of segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import GeometryError, InputError
from ..install import needed
from ..named_types import Array, Vendor
from ..storage.atomic import write_file
from .alignment import laid_on
from .dicom import Source
from .frames import SEGMENTATION, header_of, is_dicom, reading_dicom
from .geometry import Geometry
from .guards import WholeFile, quiet
from .scratch import present, slices_of
from .volume import LabelVolume, Volume

# What highdicom copies from the images and old files lack; the standard lets each be empty.
COPIED = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
          "AccessionNumber", "ReferringPhysicianName")
# Names of segments by their keyword among pydicom's SNOMED CT codes. Other names are coded as tissue.
STRUCTURES = (
    "AdrenalGland", "Amygdala", "Aorta", "Artery", "Bladder", "BloodVessel", "Bone", "Brain", "BrainStem", "Breast",
    "Cartilage", "CaudateNucleus", "Cerebellum", "CerebrospinalFluid", "Clavicle", "Colon", "Duodenum", "Esophagus",
    "Eye", "Femur", "Gallbladder", "GrayMatter", "Heart", "Hip", "Hippocampus", "Humerus", "InferiorVenaCava",
    "Kidney", "Larynx", "LeftAtrium", "LeftVentricle", "Lens", "Liver", "Lung", "LymphNode", "Mandible", "Muscle",
    "OpticNerve", "Ovary", "Pancreas", "ParotidGland", "PortalVein", "Prostate", "Putamen", "Rectum", "Rib",
    "RightVentricle", "Sacrum", "Scapula", "Skin", "Skull", "SmallIntestine", "SpinalCord", "Spleen", "Sternum",
    "Stomach", "Testis", "Thalamus", "Thyroid", "Tooth", "Trachea", "Uterus", "Vein", "Vertebra", "WhiteMatter",
)
ABNORMAL = ("Cyst", "Edema", "Hemorrhage", "Lesion", "Necrosis", "Neoplasm", "Nodule", "Tumor")
SYNONYMS = {"csf": "CerebrospinalFluid", "greymatter": "GrayMatter", "oesophagus": "Esophagus", "tumour": "Tumor",
            "urinarybladder": "Bladder", "gallbladder": "Gallbladder", "caudate": "CaudateNucleus",
            "thyroidgland": "Thyroid", "oedema": "Edema", "haemorrhage": "Hemorrhage", "smallbowel": "SmallIntestine"}
MOST_SLICES = 8  # times those of the volume: a place that is far off would fill the memory
MOST_NAME = 64  # characters of a label in DICOM


class UnreferencedError(InputError):
    """A series that no Segmentation can reference, for what its headers lack or break."""


def is_segmentation(path: Path) -> bool:
    """Whether it is a DICOM Segmentation; False where it cannot be read, which reading it says better."""
    if not is_dicom(path):
        return False
    try:
        with reading_dicom(path):
            return str(header_of(path, ("SOPClassUID",)).get("SOPClassUID")) in SEGMENTATION
    except InputError:
        return False


def read_segmentation(path: Path, like: Volume) -> LabelVolume:
    """The segments of a file on the volume's voxels: places that the file leaves out are background.

    InputError where segments overlap, are fractional, or lie on other voxels than the volume's.
    """
    highdicom = needed("highdicom", "medical", "DICOM Segmentations")
    with reading_dicom(path, "a whole DICOM Segmentation"):
        with WholeFile(path) as file:
            segments = highdicom.seg.segread(file)
        if segments.segmentation_type == highdicom.seg.SegmentationTypeValues.FRACTIONAL:
            raise InputError(f"{path} holds fractional segments; accepted: binary ones and label maps; cut them "
                             "first, for example at 0.5")
        described = {number: segments.get_segment_description(number) for number in segments.segment_numbers}
        names = {int(number): str(one.SegmentLabel) for number, one in described.items() if number}
        kind = np.uint8 if max(names, default=0) <= 255 else np.uint16
        if like.geometry.affine is None:
            values = _unplaced(path, segments, kind, like)
        else:
            values = _placed(path, segments, kind, like)
    return LabelVolume(values, like.geometry, names)


def segment_names(path: Path) -> set[str]:
    """Of the segments of a file, by its header alone; InputError where it cannot be read."""
    with reading_dicom(path, "a whole DICOM Segmentation"):
        return {str(one.SegmentLabel) for one in header_of(path, ("SegmentSequence",)).SegmentSequence}


def write_segmentation(path: Path, values: Array, names: Mapping[int, str], like: Volume) -> None:
    """values (slices, rows, columns) unsigned, as a BINARY Segmentation with a frame for every slice and segment.

    Labels become the segments 1, 2, ... in the order of their values. Raises UnreferencedError.
    """
    highdicom = needed("highdicom", "medical", "DICOM Segmentations")
    source: Source = like.header
    _check_place(path, like)
    labels = sorted({*names, *(int(value) for part in slices_of(values) for value in present(part))} - {0}) or [1]
    numbered = values
    if labels != list(range(1, len(labels) + 1)):
        table = np.zeros(max(labels) + 1, np.uint8 if len(labels) <= 255 else np.uint16)
        table[labels] = np.arange(1, len(labels) + 1)
        numbered = table[values]
    with quiet():
        images = [_header(file) for file in like.files]
        described = [_description(highdicom, number, names.get(label, f"label {label}"))
                     for number, label in enumerate(labels, 1)]
        try:
            made = _made(highdicom, images, numbered, described, source)
        except Exception as error:  # whatever the headers of a series lack; highdicom's words may quote them
            raise UnreferencedError(f"{like.files[0].parent} cannot be referenced by a DICOM Segmentation "
                                    f"({type(error).__name__}: its headers lack or break what one needs); write NIfTI "
                                    "(.nii.gz) or TIFF (.tif) instead") from None
        with write_file(path) as file:
            made.save_as(file)


def code_of(name: str) -> tuple[Vendor, Vendor, Vendor | None]:
    """The codes of a segment's name: category, type, and its side where the name says left or right.

    Codes are those of pydicom's dictionary of SNOMED CT; a name that is not in the lists above is a tissue.
    """
    from pydicom.sr.codedict import codes

    sct = codes.SCT
    words = "".join(c if c.isalnum() else " " for c in name.lower()).split()
    side = next((word for word in words if word in ("left", "right")), None)
    known = {keyword.lower(): keyword for keyword in (*STRUCTURES, *ABNORMAL)} | SYNONYMS
    rest = "".join(word for word in words if word not in ("left", "right"))
    found = [known.get(word.removesuffix("s"), "") for word in ("".join(words) + "s", rest + "s", rest, *words)]
    # Of several words only what is abnormal counts: a tumour of the liver is a tumour.
    keyword = next((k for k in (*found[:3], *(k for k in found[3:] if k in ABNORMAL)) if k), None)
    if keyword is None:
        return sct.Tissue, sct.Tissue, None
    category = sct.MorphologicallyAbnormalStructure if keyword in ABNORMAL else sct.AnatomicalStructure
    modifier = getattr(sct, side.capitalize()) if side and keyword.lower() != "".join(words) else None
    return category, getattr(sct, keyword), modifier


def _description(highdicom: Vendor, number: int, name: str) -> Vendor:
    from .. import __version__

    category, kind, side = code_of(name)
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="universeg_rt", version=__version__, family=_codes().DCM.ArtificialIntelligence)
    out = highdicom.seg.SegmentDescription(
        segment_number=number, segment_label=name[:MOST_NAME], segmented_property_category=category,
        segmented_property_type=kind, algorithm_type="AUTOMATIC", algorithm_identification=algorithm)
    if side is not None:
        out.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            highdicom.sr.CodedConcept.from_code(side)]
    return out


def _codes() -> Vendor:
    from pydicom.sr.codedict import codes

    return codes


def _made(highdicom: Vendor, images: list[Vendor], values: Array, described: list[Vendor], source: Source) -> Vendor:
    from .. import __version__

    pixels: Vendor = np.ascontiguousarray(values)
    if source.geometry is not None:
        pixels = highdicom.Volume(array=pixels, affine=source.geometry.affine, coordinate_system="PATIENT",
                                  frame_of_reference_uid=source.geometry.frame_of_reference_uid)
    made = highdicom.seg.Segmentation(
        source_images=images, pixel_array=pixels, segmentation_type="BINARY", segment_descriptions=described,
        series_instance_uid=highdicom.UID(), series_number=1000, sop_instance_uid=highdicom.UID(), instance_number=1,
        manufacturer="universeg_rt", manufacturer_model_name="universeg_rt", software_versions=__version__,
        device_serial_number="0", content_label="SEGMENTATION", content_description="In-context segmentation",
        omit_empty_frames=False)  # one viewer misplaces segments where empty frames are left out
    made.ContentCreatorName = None  # which the standard wants, if empty
    if source.geometry is None:
        made.PatientOrientation = images[0].get("PatientOrientation")
    return made


def can_reference(like: Volume) -> bool:
    """Whether a Segmentation can say where a volume lies: it has a frame of reference, or is one image without a
    place."""
    if like.kind != "dicom":
        return False
    source: Source = like.header
    return len(source.frames) == 1 if source.geometry is None else bool(source.geometry.frame_of_reference_uid)


def _check_place(path: Path, like: Volume) -> None:
    if not can_reference(like):
        raise InputError(f"{path} is a DICOM Segmentation, which needs images of one frame of reference; the input has "
                         "none: write NIfTI (.nii.gz) or TIFF (.tif) instead")


def _header(file: Path) -> Vendor:
    with reading_dicom(file):
        header = header_of(file, None)
    for keyword in COPIED:
        if keyword not in header:
            setattr(header, keyword, None)
    return header


def _placed(path: Path, segments: Vendor, kind: type, like: Volume) -> Array:
    geometry = segments.get_volume_geometry(allow_missing_positions=True)
    if geometry is not None and geometry.spatial_shape[0] > MOST_SLICES * like.geometry.shape[0] + MOST_SLICES:
        raise GeometryError(f"{path} spans {geometry.spatial_shape[0]} slices, the volume {like.geometry.shape[0]}; "
                            "give the Segmentation of this volume")
    try:
        found = segments.get_volume(combine_segments=True, dtype=kind, allow_missing_positions=True)
    except RuntimeError:
        raise InputError(f"{path} holds segments that overlap, or frames that form no volume; accepted: segments of "
                         "which each voxel has one at most; give them as files of their own") from None
    known = like.header.geometry.frame_of_reference_uid if like.kind == "dicom" else None
    own = found.frame_of_reference_uid
    if known and own and known != own:
        raise GeometryError(f"{path} lies in another frame of reference than the volume; give the Segmentation that "
                            "was made of this series")
    there = Geometry(found.spatial_shape, np.array(found.get_affine("RAH"), np.float64))
    return laid_on(like.geometry, np.asarray(found.array, kind), there, str(like.files[0]), str(path))


def _unplaced(path: Path, segments: Vendor, kind: type, like: Volume) -> Array:
    """Of a single image without a place, by which image a frame was made of."""
    if like.kind != "dicom" or len(like.files) > 1:
        raise InputError(f"{path} is a DICOM Segmentation, and the volume does not say where it lies; give labels of "
                         "its own kind")
    instance = str(header_of(like.files[0], ("SOPInstanceUID",)).SOPInstanceUID)
    try:
        found = segments.get_pixels_by_source_instance([instance], combine_segments=True, dtype=kind,
                                                       ignore_spatial_locations=True)
    except (KeyError, ValueError, RuntimeError):
        raise InputError(f"{path} does not segment {like.files[0]}, or its segments overlap; give the Segmentation "
                         "that was made of it") from None
    like.geometry.check_same(Geometry(found.shape, None), str(like.files[0]), str(path))
    return np.asarray(found)
