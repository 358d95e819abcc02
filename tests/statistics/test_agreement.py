# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.agreement import cohen_kappa, fleiss_kappa, stratified_bootstrap

# Fourteen raters, ten subjects, five categories: the worked example of Fleiss' kappa in the textbooks.
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]
)  # fmt: skip


def test_known_values() -> None:
    first, second = np.repeat([0, 0, 1, 1], [20, 5, 10, 15]), np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)


def test_a_weight_is_as_good_as_a_repetition() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    weights = rng.integers(1, 5, 40)
    repeated = cohen_kappa(np.repeat(first, weights), np.repeat(second, weights))
    assert cohen_kappa(first, second, weights.astype(float)) == pytest.approx(repeated)
    counts = np.array([rng.multinomial(5, [0.5, 0.3, 0.2]) for _ in range(40)])
    assert fleiss_kappa(counts, weights.astype(float)) == pytest.approx(
        fleiss_kappa(np.repeat(counts, weights, axis=0))
    )


def test_unequal_numbers_of_raters() -> None:
    assert fleiss_kappa(np.array([[2, 0], [0, 5], [3, 0]])) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least two"):
        fleiss_kappa(np.array([[1, 0], [0, 2]]))


def test_one_category_only_has_no_kappa() -> None:
    same = np.zeros(10, dtype=int)
    assert np.isnan(cohen_kappa(same, same)) and np.isnan(fleiss_kappa(np.array([[3, 0], [3, 0]])))
    assert stratified_bootstrap(lambda at: cohen_kappa(same[at], same[at]), same, draws=20) is None


def test_bootstrap_draws_within_strata_and_narrows_with_more_pairs() -> None:
    rng = np.random.default_rng(3)
    strata = np.repeat([0, 1], [30, 10])
    seen: list[int] = []

    def statistic(at: np.ndarray) -> float:
        seen.append(int((strata[at] == 0).sum()))
        return float(at.mean())

    interval = stratified_bootstrap(statistic, strata, draws=50)
    assert interval is not None and interval.low < interval.value < interval.high and set(seen) == {30}

    def width(n: int) -> float:
        first = rng.integers(0, 2, n)
        second = np.where(rng.random(n) < 0.8, first, 1 - first)
        found = stratified_bootstrap(lambda at: cohen_kappa(first[at], second[at]), np.zeros(n, dtype=int), draws=200)
        assert found is not None and found.low < 0.6 < found.high
        return found.high - found.low

    assert width(400) < 0.6 * width(50)
