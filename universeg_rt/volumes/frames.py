"""Frames: what DICOM headers say of each picture in a file, single or multi-frame, and its values."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..imaging.preprocess import check_pixels, luminance
from ..install import needed
from ..named_types import Array, Vendor
from ..storage.reading import reading
from .guards import WholeFile, quiet

LEAST = 16  # bytes that a frame takes, packed and with its item's header
PREAMBLE, MAGIC = 128, b"DICM"
TAGS = (
    "TransferSyntaxUID", "SOPClassUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "ImageType", "Rows",
    "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PresentationLUTShape", "NumberOfFrames", "BitsStored",
    "PixelRepresentation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices",
    "SliceThickness", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "GridFrameOffsetVector", "SeriesNumber",
    "PaletteColorLookupTableUID", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
)
# Where the functional groups of a multi-frame file hold what a single frame has at its top.
GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence", "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence", "SpacingBetweenSlices": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence", "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence", "WindowCenter": "FrameVOILUTSequence",
    "WindowWidth": "FrameVOILUTSequence",
}
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # BINARY and FRACTIONAL; LABELMAP


class NotAnImage(InputError):
    """A DICOM file that holds something else; beside the images of a series it is left out."""


@dataclass(frozen=True, slots=True)
class Frame:
    """index: from 0 in a multi-frame file, None in a file of one. spacing: millimetres from row to row and from column
    to column. thickness: what the header says of the distance to the next frame, else 0. window: centre and width."""

    file: Path
    index: int | None
    series: str
    reference: str
    modality: str
    localizer: bool
    size: tuple[int, int]
    colour: bool
    inverted: bool
    bits: int
    signed: bool
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    thickness: float
    slope: float
    intercept: float
    table: bool  # the values go through a table, not a slope
    window: tuple[float, float] | None

    @property
    def plain(self) -> bool:
        """Whether the stored values are those of the modality."""
        return not self.table and not self.colour and (self.slope, self.intercept) == (1, 0)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM does; False where it cannot be read, which reading it says better."""
    try:
        with open(path, "rb") as file:
            return file.read(PREAMBLE + len(MAGIC))[PREAMBLE:] == MAGIC
    except (OSError, ValueError):
        return False


@contextmanager
def reading_dicom(path: Path, what: str = "a whole DICOM image") -> Iterator[None]:
    """As `reading`, with the libraries kept quiet; the reason is an error's type alone, as they quote headers."""
    with quiet(), reading(what, path, quote=False):
        yield


def header_of(path: Path, tags: tuple[str, ...] | None = TAGS) -> Vendor:
    """The header of a DICOM file without its pixels, or these of its elements."""
    pydicom = needed("pydicom", "medical", "DICOM")
    if not is_dicom(path):
        raise InputError(f"{path} is not DICOM; it may be encrypted, cut off, or of another kind")
    with WholeFile(path) as file:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))


def read_frames(path: Path) -> list[Frame]:
    """All frames of a file by their header; InputError where it is no image, or one that no value can be read of."""
    with reading_dicom(path):
        header = header_of(path)
        if "Rows" not in header or "Columns" not in header:
            raise NotAnImage(f"{path} is DICOM but not an image ({_class_name(header)}); give the images of a series")
        if str(header.SOPClassUID) in SEGMENTATION:
            raise NotAnImage(f"{path} is a DICOM Segmentation, not an image; it is read as labels")
        if "GridFrameOffsetVector" in header:
            raise NotAnImage(f"{path} is a dose, not an image; give the images that it was planned on")
        check_pixels((int(header.Rows), int(header.Columns)), str(path))
        _check_decoder(path, header)
        shared = _first(header.get("SharedFunctionalGroupsSequence"))
        per_frame = header.get("PerFrameFunctionalGroupsSequence")
        count = int(header.get("NumberOfFrames") or 1)
        if count == 1 and not per_frame:
            return [_frame(path, None, header, [header, shared])]
        if count * LEAST > path.stat().st_size:
            raise InputError(f"{path} says that it has {count} frames, more than its bytes may hold; export it again")
        if count < 1 or per_frame and len(per_frame) != count:
            raise InputError(f"{path} says that it has {count} frames and describes {len(per_frame or ())}; export it "
                             "again")
        groups = per_frame or [None] * count
        return [_frame(path, index, header, [group, shared, None if per_frame else header])
                for index, group in enumerate(groups)]


def values_of(path: Path, frames: list[Frame]) -> Iterator[Array]:
    """Each of some frames of one file in their order, (H,W): in the modality's units, colour as luminance."""
    pixels: Vendor = needed("pydicom.pixels", "medical", "DICOM")
    with reading_dicom(path):
        header = header_of(path) if frames[0].table or frames[0].colour else None
        indices = None if frames[0].index is None else [frame.index for frame in frames]
        values: Array
        for frame, raw in zip(frames, _decoded(path, pixels, indices), strict=True):
            if frame.colour:
                if header is not None and header.PhotometricInterpretation == "PALETTE COLOR":
                    if not header.file_meta.TransferSyntaxUID.is_little_endian:
                        raise InputError(f"{path} has a palette in big-endian order, which pydicom misreads; export it "
                                         "in little-endian order")
                    raw = pixels.apply_color_lut(raw, header)
                    raw = (raw >> 8).astype(np.uint8) if raw.dtype == np.uint16 else raw
                if raw.dtype != np.uint8:
                    raise InputError(f"{path} is colour of {raw.dtype}; accepted: 8 bits, or grey")
                values = luminance(raw)
            elif frame.table:
                values = pixels.apply_modality_lut(raw, header).astype(np.float32)
                values = _top_of_table(header) - values if frame.inverted else values
            else:
                values = _inverted(raw, frame) if frame.inverted else raw
                if not frame.plain:
                    values = values.astype(np.float64) * frame.slope + frame.intercept
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise InputError(f"{path} holds {int((~np.isfinite(values)).sum())} NaN or infinite values; export it "
                                 "again")
            if values.shape != frame.size:
                raise ValueError("its pixels are not those of its header")
            yield values


def _decoded(path: Path, pixels: Vendor, indices: list[int | None] | None) -> Iterator[Array]:
    try:
        with WholeFile(path) as file:
            yield from pixels.iter_pixels(file, indices=indices)
    except (ValueError, RuntimeError, EOFError):  # of a length that is wrong, or of a decoder
        raise InputError(f"{path} holds pixels that cannot be decoded, or fewer than its header says: it may be cut "
                         "off; copy or export it again") from None


def _frame(path: Path, index: int | None, header: Vendor, places: list[Vendor | None]) -> Frame:
    """places: where an element may stand, the first that has it counts."""

    def of(name: str) -> Vendor:
        for place in places:
            for holder in (place, _first(place.get(GROUPS[name])) if place is not None else None):
                value = None if holder is None else holder.get(name)
                if value is not None and value != "":
                    return value
        return None

    def numbers(name: str, count: int) -> tuple[float, ...] | None:
        found = of(name)
        if found is None:
            return None
        out = tuple(float(v) for v in found)
        if len(out) != count or not np.isfinite(out).all():
            raise InputError(f"{path} holds a {name} that is not {count} finite numbers; export it again")
        return out

    def number(name: str, otherwise: float) -> float:
        found = of(name)
        out = otherwise if found is None else float(found)
        if not np.isfinite(out):
            raise InputError(f"{path} holds a {name} that is not finite; export it again")
        return out

    photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric not in PHOTOMETRIC:
        raise InputError(f"{path} says of its colours what is not read; accepted: {', '.join(PHOTOMETRIC)}; export it "
                         "as MONOCHROME2")
    modality = str(header.get("Modality") or "")
    return Frame(
        path, index, str(header.get("SeriesInstanceUID") or ""), str(header.get("FrameOfReferenceUID") or ""),
        modality if re.fullmatch("[A-Z]{2,16}", modality) else "",
        "LOCALIZER" in np.ravel(header.get("ImageType") or ""), (int(header.Rows), int(header.Columns)),
        not photometric.startswith("MONOCHROME"),
        str(header.get("PresentationLUTShape") or ("INVERSE" if photometric == "MONOCHROME1" else "")) == "INVERSE",
        int(header.get("BitsStored") or 16), bool(header.get("PixelRepresentation")),
        numbers("ImagePositionPatient", 3), numbers("ImageOrientationPatient", 6), numbers("PixelSpacing", 2),
        abs(number("SpacingBetweenSlices", 0) or number("SliceThickness", 0)), number("RescaleSlope", 1),
        number("RescaleIntercept", 0), bool(header.get("ModalityLUTSequence")), _window(of))


def _window(of: Vendor) -> tuple[float, float] | None:
    """The first window of the header; None where it has none that makes sense."""
    try:
        centre, width = (float(np.ravel(of(name))[0]) for name in ("WindowCenter", "WindowWidth"))
    except (TypeError, ValueError, IndexError):
        return None
    return (centre, width) if np.isfinite([centre, width]).all() and width > 0 else None


def _first(sequence: Vendor) -> Vendor | None:
    return sequence[0] if sequence else None


def _inverted(raw: Array, frame: Frame) -> Array:
    if raw.dtype.kind == "f":
        return -raw
    if frame.signed:
        return np.invert(raw)
    top = 2**frame.bits - 1
    return np.asarray(top - np.minimum(raw, top), raw.dtype)


def _top_of_table(header: Vendor) -> float:
    return float(2**int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)


def _class_name(header: Vendor) -> str:
    name = str(getattr(header.get("SOPClassUID"), "name", ""))
    return name if re.fullmatch(r"[A-Za-z][A-Za-z \-/]*", name) else "of an unknown kind"


def _is_ended(path: Path) -> bool:
    """Whether the delimiter of compressed pixels stands in a file, as little-endian data are written."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\xfe\xff\xdd\xe0\0\0\0\0") > 0


def _check_decoder(path: Path, header: Vendor) -> None:
    """InputError that names the packages where no decoder of the file's compression is installed."""
    pixels: Vendor = needed("pydicom.pixels", "medical", "DICOM")
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        name = syntax.name if syntax.name != str(syntax) else "a private syntax"
        raise InputError(f"{path} is compressed as {name}, which is not read; export it uncompressed") from None
    if syntax.is_encapsulated and not _is_ended(path):  # pyjpegls never comes back from a stream that is cut off
        raise InputError(f"{path} is cut off: its pixels have no end; copy or export it again")
    if not decoder.is_available:
        packages = ", or ".join(decoder.missing_dependencies)
        raise InputError(f"{path} is compressed as {syntax.name}; no decoder of it is installed ({packages}): install "
                         "one, or export the series uncompressed")
