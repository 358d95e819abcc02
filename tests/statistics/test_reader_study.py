# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.intervals import wilson_interval
from monai_memo.statistics.reader_study import allocate, detection_rates, draw_sample, score_strata


def test_strata_rise_with_the_score_and_the_threshold_is_a_border() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(0.5, 0.1, 500)
    strata = score_strata(score, 0.6)
    order = np.argsort(score)
    assert (np.diff(strata[order]) >= 0).all() and set(strata) == set(range(strata.max() + 1))
    for h in range(strata.max() + 1):
        assert len({bool(value) for value in score[strata == h] > 0.6}) == 1
    assert np.bincount(strata).min() >= 4


@pytest.mark.parametrize(("score", "threshold"), [([0.3], 0.5), ([0.9, 0.9, 0.9], 0.5), ([0.1, 0.9], 0.5)])
def test_few_or_equal_scores_give_strata_all_the_same(score: list[float], threshold: float) -> None:
    strata = score_strata(np.array(score), threshold)
    assert len(strata) == len(score) and strata.min() == 0
    assert len(set(strata)) == len({value > threshold for value in score})


def test_draws_are_shared_equally_and_small_strata_are_taken_whole() -> None:
    assert allocate([100, 3, 50], 30) == [14, 3, 13]
    assert allocate([5, 5], 100) == [5, 5]
    assert sum(allocate([7, 11, 2, 40], 23)) == 23


def test_inclusion_probabilities_are_those_of_the_draws() -> None:
    strata = np.repeat([0, 1, 2], [60, 12, 3])
    counts, stated = np.zeros(75), np.zeros(75)
    for seed in range(3000):
        positions, inclusion = draw_sample(strata, 15, np.random.default_rng(seed))
        assert len(set(positions)) == 15
        counts[positions] += 1
        stated[positions] = inclusion
    assert np.abs(counts / 3000 - stated).max() < 0.05
    assert stated[-1] == 1.0 and stated[0] == pytest.approx(6 / 60)


def test_a_census_gives_the_plain_rates() -> None:
    rates = detection_rates(
        np.array([50, 30, 20]), np.array([False, False, True]), np.array([50, 30, 20]), np.array([1, 4, 15])
    )
    assert rates.sensitivity is not None and rates.sensitivity.value == pytest.approx(15 / 20)
    assert rates.specificity is not None and rates.specificity.value == pytest.approx(75 / 80)
    assert rates.precision is not None and rates.precision.value == pytest.approx(15 / 20)
    assert rates.prevalence is not None and rates.prevalence.value == pytest.approx(20 / 100)
    # One stratum on the side of the precision: it is Wilson's interval.
    wilson = wilson_interval(15, 20)
    assert (rates.precision.low, rates.precision.high) == pytest.approx((wilson.low, wilson.high))


def test_strata_count_with_their_size_and_not_with_their_sample() -> None:
    """One in ten of the large stratum was rated; each of its copies stands for ten."""
    rates = detection_rates(np.array([900, 100]), np.array([False, True]), np.array([90, 100]), np.array([9, 90]))
    assert rates.sensitivity is not None and rates.sensitivity.value == pytest.approx(90 / (90 + 90))
    assert rates.specificity is not None and rates.specificity.value == pytest.approx(810 / 820)


def test_no_copy_seen_in_a_large_stratum_is_no_proof_of_none() -> None:
    few = detection_rates(np.array([1000, 50]), np.array([False, True]), np.array([20, 50]), np.array([0, 45]))
    many = detection_rates(np.array([1000, 50]), np.array([False, True]), np.array([500, 50]), np.array([0, 45]))
    assert few.sensitivity is not None and many.sensitivity is not None
    assert few.sensitivity.value == many.sensitivity.value == 1.0
    # 0 of 20 leaves room for one in six, that is, for 161 more copies.
    assert few.sensitivity.low == pytest.approx(0.22, abs=0.03) and many.sensitivity.low > 0.8


def test_what_cannot_be_said_is_none() -> None:
    above = np.array([False, True])
    sizes = np.array([10, 10])
    unrated = detection_rates(sizes, above, np.array([0, 5]), np.array([0, 5]))
    assert unrated.sensitivity is None and unrated.specificity is None and unrated.prevalence is None
    assert unrated.precision is not None and unrated.precision.value == 1
    no_copies = detection_rates(sizes, above, np.array([5, 5]), np.array([0, 0]))
    assert no_copies.sensitivity is None
    assert no_copies.specificity is not None and no_copies.specificity.value == pytest.approx(0.5)
    nothing = detection_rates(sizes, above, np.array([0, 0]), np.array([0, 0]))
    assert nothing.precision is None and nothing.sensitivity is None


def test_a_stratum_without_ratings_joins_its_neighbour() -> None:
    above = np.array([False, False, True])
    gap = detection_rates(np.array([40, 60, 20]), above, np.array([10, 0, 20]), np.array([1, 0, 18]))
    joined = detection_rates(np.array([100, 20]), above[1:], np.array([10, 20]), np.array([1, 18]))
    assert gap == joined


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= positive <= rated <= size"):
        detection_rates(np.array([10]), np.array([True]), np.array([5]), np.array([6]))


def test_wilson_interval() -> None:
    interval = wilson_interval(8, 10)
    assert (interval.low, interval.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 20).low == 0 and wilson_interval(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    assert wilson_interval(20, 20).high == 1
    assert wilson_interval(2.5, 10.5).value == pytest.approx(2.5 / 10.5)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_interval(3, 2)
