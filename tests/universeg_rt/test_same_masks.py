"""The native runner's masks of the shipped bundle stay the same to the bit, on every instruction set.

`same_masks.json` holds, under the sha256 of a network's weights, the seed and the mask's sha256 of each case. The seeds
are such that no pixel's probability lies within MARGIN of the threshold, so that another order of the same sums changes
no mask.
Weights that the file does not know need new hashes: `RENEW` makes them; for weights that it knows they never change.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from universeg_rt import Bundle, Ensemble, Segmenter, SupportSet
from universeg_rt.bundle.model_bytes import ModelBytes
from universeg_rt.runners.cpu.native import INSTRUCTIONS, NATIVE, NativeRunner

from ..conftest import native_part

STORED = Path(__file__).with_name("same_masks.json")
RENEW = "python -m tests.universeg_rt.test_same_masks"
MARGIN = 1e-4

# Entries, ensemble, the images' height and width, aspect.
INPUTS = {
    "one entry": (1, Ensemble(), (128, 128), "stretch"),
    "odd sizes": (3, Ensemble(), (97, 141), "stretch"),
    "odd sizes, padded": (5, Ensemble(), (75, 51), "pad"),
    "more than a chunk": (20, Ensemble(), (128, 160), "stretch"),
    "members": (7, Ensemble(members=3, support_size=4, seed=3), (61, 83), "stretch"),
    "members, padded": (6, Ensemble(members=2, support_size=8, replacement=True, seed=1), (111, 64), "pad"),
}
CASES = [f"{precision}, {name}" for precision, name in itertools.product(NATIVE, INPUTS)]


@functools.cache
def segmenter(precision: str, instructions: str) -> Segmenter:
    bundle = Bundle.open()
    weights = bundle.model(precision, "native")
    return Segmenter(bundle, NativeRunner(ModelBytes.of_file(weights), bundle.manifest.spec, instructions=instructions))


@functools.cache
def weights_sha256() -> str:
    return Bundle.open().manifest.weights_sha256


def pictures(count: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N,H,W) uint8 of a bright ellipse beside a dark one on a shaded, noisy ground;
    the bright one as label bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / np.reshape((height, width), (2, 1, 1))

    def ellipses(left: float, right: float) -> np.ndarray:
        cy, cx, ry, rx = (rng.uniform(*limits, (count, 1, 1))
                          for limits in ((0.35, 0.65), (left, right), (0.15, 0.3), (0.12, 0.2)))
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1

    bright, dark = ellipses(0.25, 0.35), ellipses(0.65, 0.75)
    images = 70 + 40 * y + 90 * bright - 50 * dark + rng.normal(0, 12, bright.shape)
    return np.clip(images, 0, 255).astype(np.uint8), bright


def mask_of(case: str, seed: int, instructions: str) -> tuple[str, float]:
    """The mask's sha256, and how near the nearest pixel's probability is to the threshold.

    The distance is 0 where the mask marks (almost) nothing.
    """
    precision, name = case.split(", ", 1)
    entries, ensemble, size, aspect = INPUTS[name]
    images, labels = pictures(entries + 1, *size, seed)
    support = SupportSet.from_arrays(images[1:], labels[1:])
    task = segmenter(precision, instructions).prepare(support, ensemble, aspect=aspect)
    prediction = task.predict(images[0])
    nearest = float(np.abs(prediction.probability - 0.5).min()) if 0.02 < prediction.mask.mean() < 0.98 else 0.0
    return hashlib.sha256(np.packbits(prediction.mask).tobytes()).hexdigest(), nearest


@pytest.mark.parametrize("instructions", INSTRUCTIONS)
@pytest.mark.parametrize("case", CASES)
def test_the_masks_are_those_of_before(case, instructions):
    if instructions not in native_part().available():
        pytest.skip(f"this processor lacks {instructions}")
    weights = weights_sha256()
    stored = json.loads(STORED.read_text()).get(weights)
    if stored is None:
        pytest.fail(
            f"{STORED.name} holds no hashes for the weights {weights}; where these are new, run `{RENEW}` in the "
            "repository's root with a build whose masks are right, and commit the file")
    sha256, nearest = mask_of(case, stored[case]["seed"], instructions)
    assert nearest > MARGIN and sha256 == stored[case]["sha256"]


def renew() -> None:
    """Writes the hashes of the weights at hand: of each case the first seed that has the margin and one mask on every
    instruction set."""
    from universeg_rt import _native

    hashes: dict[str, dict] = {}
    for case in CASES:
        for seed in itertools.count():
            found = [mask_of(case, seed, instructions) for instructions in _native.available()]
            if len({sha256 for sha256, _ in found}) == 1 and min(nearest for _, nearest in found) > MARGIN:
                break
        hashes.setdefault(weights_sha256(), {})[case] = {"seed": seed, "sha256": found[0][0]}
        print(case, seed, *(f"{nearest:.1e}" for _, nearest in found))
    STORED.write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    renew()
