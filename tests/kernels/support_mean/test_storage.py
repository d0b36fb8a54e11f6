"""The host's float16 and bfloat16 conversions against NumPy's and ml_dtypes': all patterns, and rounding of many
floats."""

import numpy as np
import pytest

PATTERNS = np.arange(65536, dtype=np.uint16)


def tricky_floats(kind):
    """Every value of the type, the middle between neighbours, a hair to both sides of it, and random bit patterns."""
    values = PATTERNS.view(kind).astype(np.float32)
    finite = np.sort(values[np.isfinite(values)])
    middle = (finite[1:].astype(np.float64) + finite[:-1]).astype(np.float64) / 2
    middle = middle.astype(np.float32)
    random = np.random.default_rng(0).integers(0, 2**32, 200000, dtype=np.uint32).view(np.float32)
    edges = np.float32(
        [65504, 65519.996, 65520, 1e30, -1e30, np.inf, -np.inf, 3.3895314e38, 3.4e38, 1e-45, -1e-45, 0.0, -0.0])
    return np.concatenate([values, middle, np.nextafter(middle, np.float32(np.inf)),
                           np.nextafter(middle, np.float32(-np.inf)), random, edges])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_conversions(native, name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    kind = np.dtype(np.float16 if name == "float16" else ml_dtypes.bfloat16)
    widen = native.half_to_float if name == "float16" else native.bfloat_to_float
    narrow = native.float_to_half if name == "float16" else native.float_to_bfloat
    np.testing.assert_array_equal(widen(PATTERNS), PATTERNS.view(kind).astype(np.float32))
    floats = tricky_floats(kind)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = floats.astype(kind)
    found = narrow(floats).view(kind)
    nan = np.isnan(floats)
    assert np.isnan(found[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(found[~nan].view(np.uint16), wanted[~nan].view(np.uint16))
