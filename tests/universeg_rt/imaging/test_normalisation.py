"""Windows by name, and which of [0, 1] an image takes."""

from __future__ import annotations

import numpy as np
import pytest

from universeg_rt import InputError, Percentiles, Window
from universeg_rt.errors import NoiseError
from universeg_rt.imaging.normalisation import CT_WINDOWS, LEAST_SHARE, MINMAX, check_not_noise, normalised, share_of
from universeg_rt.imaging.preprocess import Placement

IMAGE = np.linspace(100, 300, 64).reshape(8, 8)


def test_windows_of_ct_have_names():
    assert Window.preset("lung") == Window(-1350, 150) and Window.preset("brain") == Window(0, 80)
    assert all(Window.preset(name).low < Window.preset(name).high for name in CT_WINDOWS)


@pytest.mark.parametrize("name", ["Lung", "", None, 7])
def test_other_names_are_refused_with_those_there_are(name):
    with pytest.raises(InputError, match="there is no window .*; accepted: abdomen, bone, brain, liver, lung, "):
        Window.preset(name)


def test_the_ends_of_a_window_are_0_and_1_whatever_the_image_spans():
    values, own = normalised(IMAGE, Window(0, 400), "image")
    assert not own and np.allclose(values, IMAGE / 400)
    clipped, _ = normalised(IMAGE, Window(200, 250), "image")
    assert np.allclose(clipped, np.clip((IMAGE - 200) / 50, 0, 1))
    for grid in ((8, 8), (4, 4)):  # nor is it stretched on the grid
        on_grid = Placement.of((8, 8), grid, "stretch").normalised_to_grid(values, grid, "image", own)
        assert 0.25 <= on_grid.min() and on_grid.max() <= 0.75


def test_a_slice_of_little_range_is_not_stretched_to_it():
    assert share_of(IMAGE, MINMAX, None) == 1 == share_of(IMAGE, MINMAX, (0, 200 / LEAST_SHARE))
    share = share_of(IMAGE, MINMAX, (-5, 400 / LEAST_SHARE - 5))
    values, own = normalised(IMAGE, MINMAX, "image", share)
    assert share == 0.5 and not own and values.min() == 0 and np.isclose(values.max(), 0.5)
    assert np.allclose(values, 0.5 * normalised(IMAGE, MINMAX, "image").values)
    hot = np.where(IMAGE == IMAGE.max(), 1e6, IMAGE)
    assert share_of(hot, MINMAX, (0, 1000)) == 1 > share_of(hot, Percentiles(5, 95), (0, 1000)), "it is clipped first"
    assert share_of(IMAGE, Window(0, 4000), (0, 1e9)) == 1, "a window says itself what is dim"


@pytest.mark.parametrize("level", [0.01, 0.02, 0.05])
def test_air_is_noise_and_what_has_a_structure_is_none(level):
    rng = np.random.default_rng(0)
    air = np.hypot(*rng.normal(0, 100 * level, (2, 60, 50)))  # Rician, of a volume that spans 100
    with pytest.raises(NoiseError, match="slice 3 holds nothing but noise: it reaches .*, in a volume of 0 to 100"):
        check_not_noise(air, "slice 3", (0, 100))
    tissue, dim = air.copy(), air.copy()
    tissue[20:24, 20:24] += 80
    dim[10:40, 10:40] += 800 * level  # of half of what noise may span, but not by itself
    whole = (0, 100)
    for image, limits in ((tissue, whole), (dim, whole), (air + 60, whole), (air, None), (air, (0, air.max())),
                          (air[:1], whole)):
        check_not_noise(image, "slice 3", limits)


def test_a_window_in_other_units_misses_a_volume():
    assert Window(0, 1).misses(-86, 1900) and Window.preset("soft-tissue").misses(0, 1)
    assert Window(0, 80).misses(80, 90) and Window(0, 80).misses(-90, 0)
    assert not Window.preset("stroke").misses(-1024, 3071) and not Window.preset("lung").misses(0, 20)
    assert not Window(0, 1).misses(7, 7), "blank, which is said elsewhere"


@pytest.mark.parametrize("kind", ["spot", "line", "lines in noise", "low signal"])
def test_a_dark_slice_with_thin_small_or_faint_structures_is_no_noise(kind):
    """Each is as rough as noise from pixel to pixel."""
    rng = np.random.default_rng(0)
    noise, image = np.hypot(*rng.normal(0, 5, (2, 128, 128))), np.zeros((128, 128))
    y, x = np.mgrid[:128, :128] - 64
    if kind == "spot":
        image[60:62, 60:62] = 40
    elif kind == "line":
        image[20:100, 60] = 40
    elif kind == "lines in noise":
        image += 0.6 * noise
        image[20:100, [20, 60]] = image[[40, 100], 10:110] = 40
    else:
        image = np.hypot(8 * (x**2 + y**2 < 45**2) + rng.normal(0, 5, y.shape), rng.normal(0, 5, y.shape))
    check_not_noise(image, "slice 3", (0, 100))
    with pytest.raises(NoiseError):
        check_not_noise(noise, "slice 3", (0, 100))
