# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from monai_memo.statistics.copies_left import copies_left, lowered_thresholds, sensitivity_at_least


def test_the_bound_is_the_last_number_of_copies_that_the_counts_do_not_contradict() -> None:
    sensitivity = sensitivity_at_least(90, 100, 0.025)
    left = copies_left(20, 90, 100)
    assert left is not None
    assert binom.cdf(20, 20 + left, sensitivity) > 0.025
    assert binom.cdf(20, 20 + left + 1, sensitivity) <= 0.025


def test_without_a_planted_copy_that_was_found_nothing_is_bounded() -> None:
    assert copies_left(5, 0, 100) is None
    assert lowered_thresholds(5, 0, [0.1] * 50, [0.5]) == []
    with pytest.raises(ValueError, match="found must lie between 0 and planted"):
        sensitivity_at_least(5, 4)


@pytest.mark.parametrize("copies", [0, 5, 60, 400])
@pytest.mark.parametrize("sensitivity", [0.6, 0.9, 0.99])
def test_the_bound_holds_in_simulated_releases(copies: int, sensitivity: float) -> None:
    rng = np.random.default_rng(copies)
    draws, planted, novel, chance = 2000, 100, 500, 0.05
    above = rng.binomial(copies, sensitivity, draws)
    removed = above + rng.binomial(novel, chance, draws)
    found = rng.binomial(planted, sensitivity, draws)
    held = [
        (bound := copies_left(int(r), int(f), planted)) is not None and copies - a <= bound
        for a, r, f in zip(above, removed, found, strict=True)
    ]
    assert np.mean(held) >= 0.95


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("sensitivity", [0.6, 0.95])
def test_the_bound_holds_where_images_are_drawn_until_enough_have_entered(share: float, sensitivity: float) -> None:
    """Whoever draws until so many lie below the threshold stops with one that does."""
    rng = np.random.default_rng(int(100 * share))
    draws, planted, wanted, chance = 1000, 100, 60, 0.05
    held = []
    for _ in range(draws):
        copy = rng.random(wanted * 60) < share
        above = rng.random(len(copy)) < np.where(copy, sensitivity, chance)
        last = int(np.searchsorted(np.cumsum(~above), wanted))
        copy, above = copy[: last + 1], above[: last + 1]
        bound = copies_left(int(above.sum()), int(rng.binomial(planted, sensitivity)), planted)
        held.append(bound is not None and int((copy & ~above).sum()) <= bound)
    assert np.mean(held) >= 0.95


def test_bounds_of_lower_thresholds_hold_together_in_simulated_releases() -> None:
    rng = np.random.default_rng(1)
    tau, thresholds, copies, held = 1.0, [0.8, 0.5, 0.2], 60, []
    for _ in range(300):
        scores, planted = rng.normal(2.0, 0.8, copies), rng.normal(2.0, 0.8, 200)
        removed = int((scores > tau).sum()) + int(rng.binomial(300, 0.05))
        bounds = lowered_thresholds(removed, int((planted > tau).sum()), planted.tolist(), thresholds)
        assert [one.threshold for one in bounds] == thresholds
        held.append(all((scores <= one.threshold).sum() <= one.copies for one in bounds))
    assert np.mean(held) >= 0.95


def test_lower_thresholds_leave_fewer_copies() -> None:
    planted = np.linspace(0.5, 1.5, 300).tolist()
    bounds = [one.copies for one in lowered_thresholds(50, 240, planted, [0.7, 0.6, 0.5, 0.4])]
    assert bounds == sorted(bounds, reverse=True) and bounds[-1] < bounds[0]
