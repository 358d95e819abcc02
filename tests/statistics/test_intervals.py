# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from monai_memo.statistics.intervals import (
    patient_weights,
    percentile_interval,
    proportion_interval,
    shared_neighbour_variance,
)


def test_images_of_a_patient_come_and_go_together() -> None:
    weights = patient_weights(np.array([3, 3, 7, 9]), 50, np.random.default_rng(0))
    assert weights.shape == (50, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_proportion_interval_covers() -> None:
    for rate in (0.03, 0.2, 0.5):
        counts = np.arange(101)
        inside = [(lambda i: i.low <= rate <= i.high)(proportion_interval(int(c), 100)) for c in counts]
        assert binom.pmf(counts, 100, rate)[inside].sum() == pytest.approx(0.95, abs=0.03)


def test_zero_and_all_obey_the_rule_of_three() -> None:
    assert proportion_interval(0, 100).high >= 0.0299
    assert proportion_interval(100, 100).low <= 0.9701
    with pytest.raises(ValueError, match="between 0 and total"):
        proportion_interval(5, 4)


def test_percentile_interval_holds_its_value() -> None:
    interval = percentile_interval(2.0, np.linspace(0, 1, 101))
    assert (interval.low, interval.value, interval.high) == (pytest.approx(0.025), 2.0, 2.0)


def test_shared_neighbours_add_variance_only_when_shared() -> None:
    similarity = np.full((100, 1), 0.9)
    apart = shared_neighbour_variance(similarity, np.arange(100)[:, None], 0.5, 100)
    together = shared_neighbour_variance(similarity, np.zeros((100, 1), dtype=int), 0.5, 100)
    assert apart == 0.0
    # All 100 stand or fall with one candidate: 100 * 99 - 100 ** 2 / 100 pairs.
    assert together == pytest.approx((100 * 99 - 100) / 100**2)
