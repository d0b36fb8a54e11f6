"""The input contract: what is refused and why, normalisation, and geometry there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from universeg_rt.errors import InputError
from universeg_rt.imaging import files
from universeg_rt.imaging.preprocess import MAX_PIXELS, Placement, check_image, check_label, normalise

IMAGE = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("image, message", [
    (np.zeros((2, 3, 4)),
     r"shape \(2, 3, 4\); expected one grey image \(H,W\), or colour of uint8 \(H,W,3\) or \(H,W,4\), not float64"),
    (np.zeros(5), r"shape \(5,\); expected one grey image"),
    (np.zeros((0, 4)), r"shape \(0, 4\)"),
    (np.full((3, 3), 7), "constant \\(7\\)"),
    (np.where(IMAGE == 3, np.nan, IMAGE), "1 NaN or infinite"),
    (np.where(IMAGE > 9, np.inf, IMAGE), "2 NaN or infinite"),
    (IMAGE.astype(complex), "complex128; expected real numbers"),
    (np.array([["a", "b"]]), "expected real numbers"),
])
def test_images_that_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        check_image(image)


@pytest.mark.parametrize("label, message", [
    (np.array([[0, 1, 2, 2]] * 3), r"not binary: it holds 0, 1, 2; give 0 and 1, for example label == 2"),
    (np.array([[0, 0.5, 1, 1]] * 3), "not binary"),
    (np.zeros((3, 5)), r"shape \(3, 5\), its image \(3, 4\)"),
    (np.where(IMAGE == 3, np.nan, 0), "not binary"),
    (np.array([["a"] * 4] * 3), "expected bool"),
])
def test_labels_that_are_refused(label, message):
    with pytest.raises(InputError, match=message):
        check_label(label, (3, 4))


@pytest.mark.parametrize("label",
                         [IMAGE > 3, (IMAGE > 3).astype(np.uint8), (IMAGE > 3) * 255, (IMAGE > 3) * 1.0, IMAGE > 99])
def test_labels_that_are_accepted(label):
    out = check_label(label, (3, 4))
    assert out.dtype == bool and np.array_equal(out, np.asarray(label) > 0)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, np.int16]), (3, 4)))
def test_normalise_is_min_max_for_every_type_and_magnitude(image):
    if not np.isfinite(image.astype(np.float64)).all():
        return
    out = normalise(image)
    assert out.dtype == np.float32 and np.isfinite(out).all() and out.min() == 0.0
    if image.min() < image.max() and image.astype(np.float64).min() < image.astype(np.float64).max():
        assert out.max() == 1.0
        assert np.array_equal(out == 1.0, out == out.max())


def test_normalise_does_not_lose_small_contrast_on_a_large_offset():
    image = 1e6 + IMAGE
    assert np.abs(normalise(image) - IMAGE / 11).max() < 1e-6
    assert np.abs(normalise((30000 + IMAGE).astype(np.float64)) - IMAGE / 11).max() < 1e-6


@pytest.mark.parametrize("shape", [(32, 32), (64, 48), (17, 90), (200, 31)])
@pytest.mark.parametrize("aspect", ["stretch", "pad"])
def test_a_map_comes_back_at_the_images_own_size_and_place(shape, aspect):
    grid = (32, 32)
    placement = Placement.of(shape, grid, aspect)
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = (y / shape[0] + 2 * x / shape[1]).astype(np.float32)
    on_grid = placement.image_to_grid(image, grid)
    assert on_grid.shape == grid and on_grid.min() == 0.0 and on_grid.max() == 1.0
    back = placement.back(on_grid)
    assert back.shape == shape
    inner = np.s_[shape[0] // 8 : shape[0] - shape[0] // 8 or None, shape[1] // 8 : shape[1] - shape[1] // 8 or None]
    assert np.abs(back[inner] - normalise(image)[inner]).max() < 0.08


@pytest.mark.parametrize("shape", [(3, 400), (1000, 2), (2, 2)])
@pytest.mark.parametrize("aspect", ["stretch", "pad"])
def test_extreme_shapes_come_back_too(shape, aspect):
    placement = Placement.of(shape, (32, 32), aspect)
    image = np.arange(shape[0] * shape[1], dtype=float).reshape(shape)
    back = placement.back(placement.image_to_grid(image, (32, 32)))
    assert back.shape == shape and np.isfinite(back).all() and 0 <= back.min() <= back.max() <= 1


def test_pad_keeps_the_aspect_ratio_and_pads_with_zeros():
    placement = Placement.of((100, 50), (32, 32), "pad")
    assert (placement.grid_height, placement.grid_width, placement.top, placement.left) == (32, 16, 0, 8)
    label = placement.label_to_grid(np.ones((100, 50), bool), (32, 32))
    assert label[:, 8:24].all() and not label[:, :8].any() and not label[:, 24:].any()


def test_labels_stay_binary_and_keep_their_share():
    y, x = np.mgrid[:300, :200]
    label = (y - 150) ** 2 + (x - 90) ** 2 < 60**2
    on_grid = Placement.of(label.shape, (64, 64), "stretch").label_to_grid(label, (64, 64))
    assert set(np.unique(on_grid)) == {0.0, 1.0}
    assert abs(on_grid.mean() - label.mean()) < 0.01


def test_unknown_aspect_is_refused():
    with pytest.raises(InputError, match="accepted: stretch, pad"):
        Placement.of((8, 8), (8, 8), "crop")


@pytest.mark.parametrize("offset, dtype", [(2**62, np.int64), (-(2**63), np.int64), (2**64 - 20, np.uint64),
                                           (2**62, ">i8"), (1, np.longdouble)])
def test_values_that_float64_would_merge_keep_their_contrast(offset, dtype):
    steps = np.arange(12).reshape(3, 4)
    if np.dtype(dtype).kind == "f":
        if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
            pytest.skip("long doubles are doubles here")
        image = np.longdouble(1) + steps.astype(np.longdouble) * np.finfo(np.longdouble).eps
    else:
        image = np.array([offset + int(s) for s in steps.flat], dtype=dtype).reshape(3, 4)
    assert np.abs(normalise(check_image(image)) - steps / 11).max() < 1e-6


def test_the_whole_range_of_integers_is_kept():
    image = np.array([[-(2**63), 2**63 - 1], [0, 2**62]], np.int64)
    assert np.abs(normalise(image) - [[0, 1], [0.5, 0.75]]).max() < 1e-6


@pytest.mark.parametrize("values, cure", [((-1, 0), "label == -1"), ((-1, 0, 2), "label == 2"),
                                          ((-1.0, 0.0), "label == -1.0")])
def test_the_cure_never_marks_the_background(values, cure):
    label = np.resize(np.array(values), (3, 4))
    with pytest.raises(InputError, match=f"{cure} to mark"):
        check_label(label, (3, 4))


def test_masked_arrays_are_refused_where_they_mask_something():
    masked = np.ma.array(IMAGE, mask=IMAGE == 3)
    for check in (check_image, lambda m: check_label(m, (3, 4))):
        with pytest.raises(InputError, match=r"masked array with 1 masked values.*\.filled\(0\)"):
            check(masked)
    assert np.array_equal(check_image(np.ma.array(IMAGE)), IMAGE)


class Stubborn:
    def __array__(self, *_, **__):
        raise RuntimeError("I will not")


@pytest.mark.parametrize("value", [[[1, 2], [3]], Stubborn(), None, "text", {"a": 1}, 1 + 2j, object()])
def test_whatever_is_no_array_is_an_input_error(value):
    for check in (check_image, lambda v: check_label(v, (3, 4))):
        with pytest.raises(InputError):
            check(value)


def test_huge_arrays_are_refused_with_the_limit():
    huge = np.broadcast_to(np.uint8(0), (60_000, 60_000))  # one byte
    with pytest.raises(InputError,
                       match=f"image is 60000x60000; accepted: at most {MAX_PIXELS:,} pixels; make it smaller"):
        check_image(huge)


@pytest.mark.parametrize("offset, step", [(3e15, 0.5), (-3e15, 0.5), (2.0**52, 1.0), (1e300, 2.0**945)])
def test_a_narrow_range_far_from_zero_is_not_warped(offset, step):
    values = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(normalise(offset + step * values), normalise(values))


def test_whole_numbers_of_a_narrow_range_are_not_warped():
    values = np.arange(12).reshape(3, 4)
    for offset in (3 * 10**15, -(2**52), 2**60):
        assert np.array_equal(normalise(values + offset), normalise(values))


@pytest.mark.parametrize("rows", [
    [np.ma.masked_array(row, row == 3) for row in IMAGE],
    [[np.ma.masked if v == 3 else v for v in row] for row in IMAGE.tolist()],
    tuple(np.ma.masked_array(row, row == 3) for row in IMAGE),
])
def test_masked_rows_in_a_list_are_refused(rows):
    with pytest.raises(InputError, match="masked array with 1 masked values"):
        check_image(rows)
    assert check_image(IMAGE.tolist()).shape == (3, 4)


@pytest.mark.parametrize("path", ["x.png", b"x.png", Path("x.png")])
def test_a_path_is_no_image_and_the_reader_is_named(path):
    for check in (check_image, lambda value: check_label(value, (3, 4))):
        with pytest.raises(
                InputError,
                match=r"is a path, .*x\.png.*; read the file first, by universeg_rt\.imaging\.files\.read_image"):
            check(path)
    assert callable(files.read_image) and callable(files.read_label)


SMOOTH = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)


@pytest.mark.parametrize("label, cure", [
    (SMOOTH, "label > 127"),
    (SMOOTH // 255 * 215 + np.arange(12).reshape(3, 4), "label > 127"),
    (SMOOTH.astype(float), "label > 127"),
    (SMOOTH / 255, "label > 0.5"),
    (np.arange(12).reshape(3, 4), "label == 11"),
    (np.array([[0, 85, 170, 255]] * 3), "label == 255"),
    (np.arange(12).reshape(3, 4) * 1000, "label == 11000"),
    (SMOOTH.astype(int) - 1, "label == 254"),
])
def test_the_cure_of_a_label_that_is_not_binary(label, cure):
    with pytest.raises(InputError, match=f"give 0 and 1, for example {cure}"):
        check_label(label, (3, 4))
