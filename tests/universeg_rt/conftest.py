"""Fixtures of the SDK's tests."""

from __future__ import annotations

import pytest

from universeg_rt import Segmenter


@pytest.fixture(scope="module")
def segmenter(small_bundle) -> Segmenter:
    return Segmenter.open(small_bundle)
