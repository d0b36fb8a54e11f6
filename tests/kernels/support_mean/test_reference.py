"""reference.py is the definition; here it is compared with loops that a reader can check by eye."""

import numpy as np
import pytest

from universeg_rt.errors import InputError
from universeg_rt.kernels.support_mean import reference


def by_loops(support, query, weights, slope):
    b_count, k_count = query.shape[0], support.shape[1]
    _, _, s_count, c_count, height, width = support.shape
    activated = np.zeros((b_count, k_count, s_count, c_count, height, width))
    for b, k, s, c, y, x in np.ndindex(activated.shape):
        v = float(support[b if len(support) > 1 else 0, k, s, c, y, x]) \
            + float(query[b, k if query.shape[1] > 1 else 0, 0, c, y, x])
        activated[b, k, s, c, y, x] = v if v > 0 else float(np.float32(slope)) * v
    pooled = np.zeros((b_count, k_count, s_count, c_count, height // 2, width // 2))
    for i in np.ndindex(pooled.shape):
        y, x = 2 * i[4], 2 * i[5]
        pooled[i] = activated[i[:4] + (slice(y, y + 2), slice(x, x + 2))].max()
    mean, pooled_mean = np.zeros(activated[:, :, 0].shape), np.zeros(pooled[:, :, 0].shape)
    for s in range(s_count):
        for k in range(k_count):
            mean[:, k] += float(weights[k, s]) * activated[:, k, s]
            pooled_mean[:, k] += float(weights[k, s]) * pooled[:, k, s]
    return activated, mean, pooled, pooled_mean


def arrays(bs=2, b=2, k=2, kq=2, s=3, c=2, h=5, w=4, dtype=np.float32):
    rng = np.random.default_rng(3)
    weights = rng.random((k, s)).astype(np.float32)
    return (rng.standard_normal((bs, k, s, c, h, w)).astype(dtype),
            rng.standard_normal((b, kq, 1, c, h, w)).astype(dtype),
            weights / weights.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("bs, kq, dtype", [(2, 2, np.float32), (1, 2, np.float16), (2, 1, np.float64)])
def test_forms_equal_loops(bs, kq, dtype):
    support, query, weights = arrays(bs=bs, kq=kq, dtype=np.float32 if dtype == np.float64 else dtype)
    activated, mean, pooled, pooled_mean = by_loops(support, query, weights, 0.2)
    out = reference.support_mean_pool(support, query, weights, 0.2)
    for found, wanted in ((out.activated, activated), (out.mean, mean), (out.pooled, pooled),
                          (out.pooled_mean, pooled_mean)):
        np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)
    np.testing.assert_array_equal(reference.support_mean(support, query, weights, 0.2).mean, out.mean)


def convolve3(x, kernel):
    """(I,H,W), (O,I,3,3) -> (O,H,W) with zero padding."""
    height, width = x.shape[1:]
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1)])
    out = np.zeros((len(kernel), height, width))
    for dy in range(3):
        for dx in range(3):
            out += np.einsum("oi,ihw->ohw", kernel[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
    return out


@pytest.mark.parametrize("height, width", [(2, 2), (2, 7), (7, 2), (3, 3), (6, 5), (9, 12)])
def test_composed_convolution_equals_two_convolutions_at_every_pixel(height, width):
    rng = np.random.default_rng(height * 13 + width)
    cross, second = rng.standard_normal((6, 2, 3, 3)), rng.standard_normal((4, 6, 3, 3))
    support = rng.standard_normal((1, 3, 2, height, width)).astype(np.float32)
    query = np.zeros((1, 1, 1, 4, height, width), np.float32)
    weights = np.full((1, 3), 1 / 3, np.float32)
    wanted = np.stack([convolve3(convolve3(v.astype(np.float64), cross), second) for v in support[0]])
    # Slope 1 makes the activation the identity, so `activated` is the convolution itself.
    out = reference.support_mean_conv_pool(support, query, weights, *reference.compose(cross, second), 1.0)
    np.testing.assert_allclose(out.activated[0, 0], wanted, atol=2e-5)
    plain, border = reference.compose(cross, second)
    without = reference.support_mean_conv_pool(support, query, weights, plain, np.zeros_like(border), 1.0).activated[0,
                                                                                                                     0]
    ring = np.ones((height, width), bool)
    ring[1:-1, 1:-1] = False
    assert np.abs(without - wanted)[..., ring].max() > 0.1  # the correction is needed ...
    if not ring.all():
        np.testing.assert_allclose(without[..., ~ring], wanted[..., ~ring], atol=2e-5)  # ... on the ring alone


def test_error_bounds_hold_for_rounding_and_fail_for_a_wrong_element():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(1000)
    bound = reference.error_bounds("float16", np.abs(exact), exact, 0)
    assert (np.abs(exact.astype(np.float16) - exact) <= bound).all()
    assert (np.abs(exact * (1 + 2.0**-9) - exact) > bound).mean() > 0.9


BAD = {
    "S = 0": (dict(s=0), "empty"),
    "no channels": (dict(c=0), "empty"),
    "queries": (dict(bs=3), "3 queries"),
    "sets": (dict(k=3, kq=2), "2 sets"),
}


@pytest.mark.parametrize("change, said", BAD.values(), ids=BAD)
def test_bad_shapes_are_refused(change, said):
    if "s" in change:
        shapes = (2, 2, 0, 2, 5, 4), (2, 2, 1, 2, 5, 4), (2, 0)
        support, query, weights = (np.zeros(shape, np.float32) for shape in shapes)
    else:
        support, query, weights = arrays(**change)
    with pytest.raises(InputError, match=said):
        reference.support_mean(support, query, weights)


def test_bad_types_values_and_ranks_are_refused():
    support, query, weights = arrays()
    with pytest.raises(InputError, match="one type"):
        reference.support_mean(support, query.astype(np.float16), weights)
    with pytest.raises(InputError, match="int32"):
        reference.support_mean(support.astype(np.int32), query, weights)
    with pytest.raises(InputError, match="float32"):
        reference.support_mean(support, query, weights.astype(np.float64))
    with pytest.raises(InputError, match="sum to 1"):
        reference.support_mean(support, query, weights * 2)
    with pytest.raises(InputError, match="sum to 1"):
        reference.support_mean(support, query, weights * np.nan)
    with pytest.raises(InputError, match="shape"):
        reference.support_mean(support[0], query, weights)
    with pytest.raises(InputError, match="one shape"):
        reference.support_mean(support, query[..., :3], weights)
    for slope in (0.0, -1.0, 1.5, float("nan"), True, "0.1"):
        with pytest.raises(InputError, match="negative_slope"):
            reference.support_mean(support, query, weights, slope)
    with pytest.raises(InputError, match="2x2"):
        reference.support_mean_pool(support[..., :1], query[..., :1], weights)
    with pytest.raises(InputError, match="compose"):
        reference.compose(np.zeros((4, 2, 5, 5)), np.zeros((4, 4, 3, 3)))
    raw = np.zeros((2, 3, 2, 5, 4), np.float32)
    convolution, border = reference.compose(np.zeros((4, 2, 3, 3)), np.zeros((2, 4, 3, 3)))
    with pytest.raises(InputError, match="border"):
        reference.support_mean_conv_pool(raw, query, weights, convolution, border[:, :1])
    with pytest.raises(InputError, match="convolution"):
        reference.support_mean_conv_pool(raw, query, weights, convolution[:, :, :3], border)
    with pytest.raises(InputError, match="2, H, W"):
        reference.support_mean_conv_pool(raw[:, :, :1], query, weights, convolution, border)
