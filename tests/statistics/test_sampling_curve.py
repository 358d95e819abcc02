# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.sampling_curve import expected_copied, sampling_curve, unseen


def test_interpolation_is_the_mean_over_subsets() -> None:
    rng = np.random.default_rng(0)
    copied = np.concatenate([rng.integers(0, 15, 30), np.full(20, -1)])
    counts = np.unique(copied[copied >= 0], return_counts=True)[1]
    draws = [len(set(rng.permutation(copied)[:20]) - {-1}) for _ in range(4000)]
    assert expected_copied(counts, 50, np.array([20]))[0] == pytest.approx(np.mean(draws), abs=0.1)
    assert expected_copied(counts, 50, np.array([50]))[0] == len(counts)


def test_extrapolation_meets_what_further_draws_show() -> None:
    rng = np.random.default_rng(1)
    truths, estimates = [], []
    for _ in range(40):
        drawn = rng.integers(0, 80, 600)  # 80 memorized images, equally likely; one synthetic image in four a copy
        drawn[rng.random(600) > 0.25] = -1
        first = drawn[:200]
        curve = sampling_curve(first[first >= 0], 200, 1000, draws=20)
        estimates.append(np.interp(600, curve.drawn, curve.copied))
        truths.append(len(set(drawn) - {-1}))
    assert np.mean(estimates) == pytest.approx(np.mean(truths), rel=0.15)


def test_limits_and_edges() -> None:
    assert unseen(np.array([1, 1, 2]), 10) == pytest.approx(0.9 * 4 / 2)
    empty = sampling_curve(np.array([], dtype=np.int64), 10, 100)
    assert empty.seen == 0 and empty.limit == 0 and (empty.copied == 0).all()
    every = sampling_curve(np.arange(5), 5, 6)
    assert every.limit == 6 and every.copied.max() <= 6
    assert (every.low <= every.copied).all() and (every.copied <= every.high).all()
    with pytest.raises(ValueError, match="at least one synthetic"):
        sampling_curve(np.array([], dtype=np.int64), 0, 3)
