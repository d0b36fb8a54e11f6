"""Rank correlation, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from universeg_rt.training.evaluation.ranks import rank_correlation, ranks


def test_ties_share_the_mean_of_their_ranks():
    assert ranks([3, 1, 3, 2]).tolist() == [3.5, 1, 3.5, 2]


def test_rank_correlation_is_spearmans():
    assert rank_correlation([1, 2, 3, 9], [0.1, 0.2, 0.3, 0.31]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 2], [1, 1, 2, 2]) == pytest.approx(1) and np.isnan(
        rank_correlation([1, 1], [1, 2]))
