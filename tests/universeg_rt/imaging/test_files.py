"""Pictures and labels from files: each trap of a format is an error or is read as a user expects, never wrong in
silence."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from universeg_rt import InputError, SupportSet
from universeg_rt.imaging.files import image_files, named_images, pages, read_image, read_label
from universeg_rt.imaging.pairs import read_pairs
from universeg_rt.imaging.preprocess import MAX_PIXELS

from ...conftest import discs

MARK = np.zeros((12, 10), np.uint8)
MARK[2:7, 3:6] = 1
GREY = (np.arange(120).reshape(12, 10) * 2).astype(np.uint8)
WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (128, 0, 0)


def palette(indices: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_only_accepted_formats_are_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("a.png", "a.tif", "a.jpg", "a.bmp", "a.eps"):
        (tmp_path / name).write_bytes(eps)
        for read in (read_image, read_label):
            with pytest.raises(InputError, match=r"a\.\w+ cannot be read as an image .*accepted: .png, .jpg"):
                read(tmp_path / name)
    Image.fromarray(GREY).save(tmp_path / "jpeg.png", "JPEG")
    assert read_image(tmp_path / "jpeg.png").shape == GREY.shape


@pytest.mark.parametrize("colours", [(BLACK, WHITE), (BLACK, RED), (RED, RED)])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_palette_labels_are_their_indices(tmp_path, colours, ending):
    palette(MARK, *colours).save(tmp_path / f"label.{ending}")
    assert np.array_equal(np.array(read_label(tmp_path / f"label.{ending}")) != 0, MARK != 0)


def coloured(*colours: tuple[int, int, int]) -> Image.Image:
    """Rows of colours, without a palette."""
    return Image.fromarray(np.repeat(np.array(colours, np.uint8)[:, None], 20, axis=1).repeat(4, axis=0))


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
def test_a_label_in_one_colour_on_black_is_a_mask(tmp_path, ending):
    coloured(BLACK, RED).save(tmp_path / f"label.{ending}")
    assert np.array_equal(read_label(tmp_path / f"label.{ending}"), np.repeat([[0], [255]], 4, axis=0).repeat(20, 1))
    coloured(BLACK, (7, 7, 7), WHITE).save(tmp_path / f"grey.{ending}")
    assert set(np.unique(read_label(tmp_path / f"grey.{ending}"))) == {0, 7, 255}


@pytest.mark.parametrize("colours, said", [
    ((BLACK, RED, (0, 65, 0)), "3 colours (#000000, #004100, #800000)"),  # of the same luminance, the last two
    ((WHITE, RED), "2 colours (#800000, #ffffff)"), ((RED,), "1 colours"),
])
def test_labels_in_colours_are_refused_with_the_cure(tmp_path, colours, said):
    coloured(*colours).save(tmp_path / "label.png")
    with pytest.raises(InputError, match=f"{re.escape(said)}.*save it as grey, 0 for the background and a value for"):
        read_label(tmp_path / "label.png")
    assert read_image(tmp_path / "label.png").shape == (4 * len(colours), 20)


@pytest.mark.parametrize("colours", [(WHITE, BLACK), (RED, BLACK)])
def test_palette_labels_that_look_inverted_are_refused(tmp_path, colours):
    palette(MARK, *colours).save(tmp_path / "label.png", bits=8)
    with pytest.raises(
            InputError,
            match="index 0, the background, looks brighter or less transparent than index 1; .*save it as grey"):
        read_label(tmp_path / "label.png")


def test_bitmaps_with_a_palette(tmp_path):
    palette(MARK, BLACK, RED).save(tmp_path / "red.bmp")
    assert np.array_equal(read_label(tmp_path / "red.bmp"), MARK)
    Image.fromarray(MARK != 0).save(tmp_path / "bits.bmp")
    assert np.array_equal(read_label(tmp_path / "bits.bmp"), MARK != 0)
    palette(MARK, BLACK, WHITE).save(tmp_path / "white.bmp")
    with pytest.raises(InputError, match="which Pillow misreads; save it as PNG"):
        read_label(tmp_path / "white.bmp")


def test_a_palette_says_by_transparency_what_the_background_is(tmp_path):
    palette(MARK, WHITE, BLACK).save(tmp_path / "clear.png", transparency=0)
    assert np.array_equal(read_label(tmp_path / "clear.png"), MARK)
    palette(MARK, BLACK, WHITE).save(tmp_path / "inverted.png", transparency=1)
    with pytest.raises(InputError, match="less transparent than index 1"):
        read_label(tmp_path / "inverted.png")


def test_palette_pictures_are_luminance(tmp_path):
    palette(MARK, WHITE, BLACK).save(tmp_path / "picture.png")
    assert np.array_equal(read_image(tmp_path / "picture.png"), 255 - MARK * 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_labels_are_refused_and_opaque_ones_read(tmp_path, mode):
    picture = Image.fromarray(MARK * 255).convert(mode)
    picture.save(tmp_path / "opaque.png")
    assert np.array_equal(read_label(tmp_path / "opaque.png"), MARK * 255)
    picture.putalpha(Image.fromarray(MARK * 255))
    picture.save(tmp_path / "clear.png")
    with pytest.raises(InputError, match="a label with transparent pixels, .*save it as grey"):
        read_label(tmp_path / "clear.png")
    notes = []
    assert read_image(tmp_path / "clear.png", notes).shape == MARK.shape and "transparency was not used" in notes[0]


@pytest.mark.parametrize("grey", [MARK * 255, MARK.astype(np.uint16)])
def test_a_grey_value_that_is_transparent_is_refused_in_a_label(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "label.png", transparency=0)
    with pytest.raises(InputError, match="transparent pixels"):
        read_label(tmp_path / "label.png")


@pytest.mark.parametrize("read", [read_image, read_label])
@pytest.mark.parametrize("name", ["a.tif", "a.png", "gif.png"])
def test_several_frames_are_refused_by_number(tmp_path, name, read):
    frames = [Image.fromarray(GREY + i) for i in range(3)]
    frames[0].save(tmp_path / name, "GIF" if name == "gif.png" else None, save_all=True, append_images=frames[1:])
    message = "cannot be read as an image" if name == "gif.png" else "holds 3 frames, .*save each frame .* of its own"
    with pytest.raises(InputError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "lzw.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_and_labels_are_turned_upright(tmp_path, orientation, ending):
    y, x = np.mgrid[:48, :32]
    upright = (3 * y + 2 * x).astype(np.uint8)
    back = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
            6: lambda a: np.rot90(a), 7: lambda a: np.rot90(a, 2).T, 8: lambda a: np.rot90(a, -1)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(back(upright))).save(
        tmp_path / f"a.{ending}", exif=exif, compression="tiff_lzw" if ending == "lzw.tif" else None)
    for read in (read_image, read_label):
        notes = []
        found = read(tmp_path / f"a.{ending}", notes)
        assert found.shape == upright.shape and np.abs(found.astype(int) -
                                                       upright).max() <= (6 if ending == "jpg" else 0)
        assert len(notes) == (orientation > 1)


def test_a_label_on_its_side_is_told_so():
    images, labels = discs(1, 40, 30)
    with pytest.raises(InputError, match="turned on its side"):
        SupportSet.from_arrays(images, [labels[0].T])


@pytest.mark.parametrize("colour, channels", [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_of_colour_are_not_cut_to_eight(tmp_path, colour, channels):
    rows = (b"\0" + np.arange(10 * channels, dtype=">u2").tobytes()) * 12
    (tmp_path / "deep.png").write_bytes(png(10, 12, 16, colour, rows))
    for read in (read_image, read_label):
        with pytest.raises(InputError, match="in 16 bits, which would be cut to 8; save it as 16-bit grey"):
            read(tmp_path / "deep.png")
    (tmp_path / "flat.png").write_bytes(png(10, 12, 8, colour, (b"\0" + bytes(10 * channels)) * 12))
    assert read_image(tmp_path / "flat.png").shape == (12, 10)


@pytest.mark.parametrize(
    "grey",
    [GREY, (GREY.astype(np.uint16) * 200), GREY > 100,
     GREY.astype(np.int32) * 90_000,
     GREY.astype(np.float32) / 7])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_grey_comes_as_it_is(tmp_path, grey, ending):
    if ending == "png" and grey.dtype in (np.int32, np.float32):
        return
    Image.fromarray(grey).save(tmp_path / f"a.{ending}")
    for read in (read_image, read_label):
        assert np.array_equal(read(tmp_path / f"a.{ending}"), grey)


def test_huge_pictures_are_refused_with_the_limit(tmp_path):
    for side, name in ((60_000, "a.png"), (12_000, "b.png"), (20_000, "c.tif")):
        if name.endswith("png"):
            (tmp_path / name).write_bytes(png(side, side, 8, 0, b""))
        else:
            Image.new("1", (side, side)).save(tmp_path / name, compression="group4")
        for read in (read_image, read_label):
            with pytest.raises(InputError, match=f"accepted: at most {MAX_PIXELS:,} pixels; make it smaller"):
                read(tmp_path / name)
    with open(tmp_path / "d.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (60_000, 60_000)})
        file.truncate(file.tell() + 60_000**2)  # a hole, it takes no room
    with pytest.raises(InputError, match=r"shape \(60000, 60000\); accepted: at most"):
        read_image(tmp_path / "d.npy")


def test_a_damaged_exif_block_does_not_lose_a_good_picture(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert np.array_equal(read_image(tmp_path / "a.png"), GREY)


def test_subfolders_are_paired_by_their_paths(tmp_path):
    images, labels = discs(2)
    for i, patient in enumerate(("p1", "p2")):
        for part, array in (("images", images[i]), ("labels", labels[i].astype(np.uint8) * 255)):
            (tmp_path / part / patient).mkdir(parents=True)
            Image.fromarray(array).save(tmp_path / part / patient / "001.png")
    support = SupportSet.from_folder(tmp_path)
    assert support.names == ("p1/001", "p2/001") and np.array_equal(support.images[1], images[1])
    Image.fromarray(images[0]).save(tmp_path / "images" / "p2" / "001.tif")
    with pytest.raises(InputError, match=r"001\..* have the same name but for the ending; rename one"):
        SupportSet.from_folder(tmp_path)


def test_hidden_files_and_a_folder_of_results_are_left_out(tmp_path):
    for name in ("a.png", "b/c.png", ".d/e.png", ".f.png", "out/masks/a.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    others = []
    found = image_files(tmp_path, lambda folder: folder.name == "out", others.append)
    assert [str(file.relative_to(tmp_path)) for file in found] == ["a.png", "b/c.png"]
    assert others == [tmp_path / "notes.txt"]
    assert list(named_images(tmp_path)) == ["a", "b/c", "out/masks/a"]


def test_a_tiff_whose_zero_is_white_is_inverted_in_sixteen_bits_as_in_eight(tmp_path):
    deep, notes = GREY.astype(np.uint16) * 200, []
    for name, values in (("eight", GREY), ("sixteen", deep), ("float", deep.astype(np.float32))):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
        data = (tmp_path / f"{name}.tif").read_bytes()
        assert data.count(struct.pack("<HHII", 262, 3, 1, 1)) == 1
        (tmp_path / f"{name}.tif").write_bytes(
            data.replace(struct.pack("<HHII", 262, 3, 1, 1), struct.pack("<HHII", 262, 3, 1, 0)))
    assert np.array_equal(read_image(tmp_path / "eight.tif"), 255 - GREY)
    for read in (read_image, read_label):
        inverted = read(tmp_path / "sixteen.tif", notes)
        assert inverted.dtype == np.uint16 and np.array_equal(inverted, 65_535 - deep)
    assert notes == []
    assert np.array_equal(read_image(tmp_path / "float.tif", notes), deep)
    assert len(notes) == 1 and "0 is white" in notes[0]


def test_labels_that_belong_together_mark_by_one_colour(tmp_path):
    """Two labels of a colour each, in files or pages of their own, are not one mask."""
    first, second = coloured(BLACK, RED), coloured(BLACK, (0, 255, 0))
    first.save(tmp_path / "stack.tif", save_all=True, append_images=[second])
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name, label in (("a", first), ("b", second)):
        coloured(BLACK, WHITE).save(tmp_path / "images" / f"{name}.png")
        label.save(tmp_path / "labels" / f"{name}.png")
    said = "labels mark by different colours, #800000 in .* and #00ff00 in .*; save them as grey"
    with pytest.raises(InputError, match=said):
        read_pairs(tmp_path)
    with pytest.raises(InputError, match=said):
        list(pages(tmp_path / "stack.tif", [], label=True))
    first.save(tmp_path / "labels" / "b.png")
    assert [label.max() for label in read_pairs(tmp_path)[1]] == [255, 255]
