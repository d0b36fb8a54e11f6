"""Stacks: the pages of a TIFF there and back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from universeg_rt.errors import InputError
from universeg_rt.volumes.reading import find_volumes, is_volume, read_labels, read_volume
from universeg_rt.volumes.writing import labels_ending, map_ending, write_labels, write_map

from .test_nifti import is_mapped

VALUES = np.random.default_rng(0).integers(0, 60_000, (4, 9, 7)).astype(np.uint16)


def save(path, pages) -> None:
    images = [page if isinstance(page, Image.Image) else Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int32])
def test_pages_are_slices(tmp_path, dtype):
    save(tmp_path / "s.tif", VALUES.astype(dtype))
    volume = read_volume(tmp_path / "s.tif")
    assert np.array_equal(volume.values, VALUES.astype(dtype)) and volume.values.dtype == dtype
    assert volume.kind == "stack" and volume.geometry.affine is None and volume.acquired == 0
    assert is_mapped(volume.values)


def test_labels_and_maps_come_back(tmp_path):
    save(tmp_path / "s.tif", VALUES)
    volume = read_volume(tmp_path / "s.tif")
    assert labels_ending(volume) == map_ending(volume) == ".tif"
    for top, dtype in ((255, np.uint8), (300, np.uint16), (0, np.uint8)):
        labels = np.where(VALUES > 30_000, top, 0)
        write_labels(tmp_path / "l.tif", labels, {}, volume)
        read = read_labels(tmp_path / "l.tif", volume)
        assert np.array_equal(read.values, labels) and read.values.dtype == dtype
        assert read.names == ({top: f"label {top}"} if top else {})
    write_map(tmp_path / "m.tif", VALUES / 60_000, volume)
    with Image.open(tmp_path / "m.tif") as file:
        assert file.n_frames == 4
        for page in range(4):
            file.seek(page)
            assert np.array_equal(np.asarray(file), (VALUES[page] / 60_000).astype(np.float32))
    with pytest.raises(InputError, match="says where voxels lie, and the input does not"):
        write_labels(tmp_path / "l.nii.gz", np.zeros(VALUES.shape, int), {}, volume)
    with pytest.raises(InputError, match="no ending that a map is written with"):
        write_map(tmp_path / "m.png", VALUES, volume)


def test_a_stack_of_one_page_is_written_too(tmp_path):
    save(tmp_path / "s.tif", VALUES[:2])
    volume = read_volume(tmp_path / "s.tif")
    write_labels(tmp_path / "l.tif", VALUES[:2] > 9, {1: "x"}, volume)
    assert not is_volume(tmp_path / "none.tif") and is_volume(tmp_path / "l.tif")
    Image.fromarray(VALUES[0]).save(tmp_path / "single.tif")
    assert not is_volume(tmp_path / "single.tif") and list(find_volumes(tmp_path)) == ["l", "s"]


def test_colour_is_luminance_and_palettes_of_labels_are_indices(tmp_path):
    colour = np.stack([VALUES.astype(np.uint8)] * 3, -1)
    save(tmp_path / "c.tif", colour)
    assert np.array_equal(read_volume(tmp_path / "c.tif").values, VALUES.astype(np.uint8))
    pages = []
    for page in VALUES % 3:
        picture = Image.frombytes("P", page.shape[::-1], page.astype(np.uint8).tobytes())
        picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
        pages.append(picture)
    save(tmp_path / "p.tif", pages)
    read = read_labels(tmp_path / "p.tif", read_volume(tmp_path / "c.tif"))
    assert np.array_equal(read.values, VALUES % 3) and set(read.names) == {1, 2}


def test_pages_of_several_kinds_are_refused(tmp_path):
    save(tmp_path / "s.tif", [VALUES[0], VALUES[1, :5]])
    with pytest.raises(InputError, match=r"page 2 is uint16 of \(5, 7\), the first uint16 of \(9, 7\)"):
        read_volume(tmp_path / "s.tif")
    save(tmp_path / "s.tif", [VALUES[0], VALUES[0].astype(np.uint8)])
    with pytest.raises(InputError, match="page 2 is uint8"):
        read_volume(tmp_path / "s.tif")
    save(tmp_path / "s.tif", np.where(VALUES > 9, np.nan, 0).astype(np.float32))
    with pytest.raises(InputError, match="page 1 holds NaN"):
        read_volume(tmp_path / "s.tif")
    save(tmp_path / "s.tif", VALUES)
    whole = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError):
        read_volume(tmp_path / "s.tif")
    (tmp_path / "t.tif").write_bytes(b"II*\0nonsense")
    with pytest.raises(InputError, match="is no volume; accepted: NIfTI"):
        read_volume(tmp_path / "t.tif")
