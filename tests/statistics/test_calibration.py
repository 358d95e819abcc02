# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest

from monai_memo.errors import CalibrationError
from monai_memo.statistics.calibration import (
    expected_floor,
    memorized_level,
    require_heldout,
    smallest_heldout,
    subset_maximum_weights,
    threshold_copies,
    threshold_memorized,
    threshold_paper,
    upper_quantile,
)


def test_paper_threshold_is_the_95th_percentile_by_hand() -> None:
    # 21 training images: the 95th percentile lies on the 20th of them (0.95 * 20 = 19 steps from the first).
    nearest = np.array([0.05 * i for i in range(21)])
    assert threshold_paper(nearest[::-1]) == nearest[19]
    # 11 training images: 9.5 steps from the first, halfway between the 10th and the 11th.
    assert threshold_paper(np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.25, 0.75])) == 0.775


@pytest.mark.parametrize("plotting", ["linear", "weibull"])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95])
def test_upper_quantile_with_unit_weights_is_numpys(plotting: str, level: float) -> None:
    values = np.random.default_rng(0).normal(size=137)
    expected = np.quantile(values, level, method=plotting)  # type: ignore[call-overload]
    assert upper_quantile(values, np.ones(137), level, plotting)[0] == pytest.approx(expected, abs=1e-12)


def test_upper_quantile_with_whole_weights_repeats_values() -> None:
    values, weights = np.array([0.3, 0.1, 0.9, 0.5]), np.array([3, 0, 2, 5])
    found = upper_quantile(values, np.stack([weights, np.ones(4)]), 0.8, "linear")
    # Interpolation between repeated values differs by design; the quantile must lie between the same two of them.
    assert 0.5 <= found[0] <= 0.9
    assert found[1] == pytest.approx(np.quantile(values, 0.8))


def test_conformal_threshold_lets_exactly_five_percent_pass_on_average() -> None:
    rng = np.random.default_rng(1)
    passed = [float(rng.uniform() > threshold_copies(rng.uniform(size=60))[0]) for _ in range(20_000)]
    assert np.mean(passed) == pytest.approx(0.05, abs=0.005)


def test_subset_weights_equal_brute_force() -> None:
    n, subset = 7, 3
    first = [min(chosen) for chosen in itertools.combinations(range(n), subset)]
    expected = np.bincount(first, minlength=n) / len(first)
    np.testing.assert_allclose(subset_maximum_weights(n, subset, n), expected, atol=1e-12)


def test_subset_weights_of_a_short_list_still_sum_to_one() -> None:
    weights = subset_maximum_weights(1000, 50, 32)
    assert weights.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="between 1 and 10"):
        subset_maximum_weights(10, 11, 5)


def test_memorized_threshold_averages_over_subsets() -> None:
    rng = np.random.default_rng(2)
    similarity = -np.sort(-rng.uniform(size=(500, 40)), axis=1)
    exact = threshold_memorized(similarity, 40, 10)[0]
    repeats = [np.quantile(rng.permuted(similarity, axis=1)[:, :10].max(axis=1), 0.95) for _ in range(200)]
    assert exact == pytest.approx(np.mean(repeats), abs=0.002)


def test_memorized_threshold_with_equal_cohorts_is_the_plain_quantile() -> None:
    similarity = -np.sort(-np.random.default_rng(3).uniform(size=(99, 20)), axis=1)
    expected = np.quantile(similarity[:, 0], 0.95, method="weibull")
    assert threshold_memorized(similarity, 20, 20)[0] == pytest.approx(expected, abs=1e-12)


def test_fewer_heldout_than_synthetic_raises_the_level() -> None:
    assert memorized_level(100, 1000, 0.95) == pytest.approx(0.95**0.1)
    assert memorized_level(1000, 100, 0.95) == 0.95


def test_too_few_heldout_patients_are_refused() -> None:
    assert smallest_heldout(0.95) == 19
    require_heldout(19, 0.95)
    with pytest.raises(CalibrationError, match=r"18 held-out patients .* at least 19"):
        require_heldout(18, 0.95)


def test_expected_floor_matches_the_paper_sizes() -> None:
    assert expected_floor(904, 226) == pytest.approx(0.1855, abs=1e-4)
    assert expected_floor(100, 100) == pytest.approx(0.05)
