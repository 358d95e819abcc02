# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, mannwhitneyu

from monai_memo.statistics.membership import (
    auc_interval,
    by_patient,
    excluded_share,
    found_at,
    permutation_p,
    separations,
)


def test_scores_are_averaged_over_the_images_of_a_patient() -> None:
    scores = np.array([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    means, names = by_patient(scores, ["p2", "p1", "p2"])
    assert names == ["p1", "p2"] and means.tolist() == [[3.0, 30.0], [3.0, 30.0]]


def test_the_interval_of_the_area_covers_it_as_often_as_it_says() -> None:
    """Normal scores with a known area: 0.5 (no memory) and 0.76 (one standard deviation apart)."""
    for shift, area in ((0.0, 0.5), (1.0, 0.7602)):
        rng, covered = np.random.default_rng(3), 0
        for number in range(200):
            members, others = rng.normal(shift, 1, 30), rng.normal(0, 1, 40)
            found = auc_interval(members, others, draws=200, seed=number)
            covered += found.low <= area <= found.high
        assert 184 <= covered <= 200, (shift, covered)  # at least 92 % where 95 % are claimed


def test_cohorts_that_are_told_apart_completely_still_have_an_interval() -> None:
    few = auc_interval(np.arange(5.0) + 10, np.arange(5.0))
    many = auc_interval(np.arange(100.0) + 1000, np.arange(100.0))
    assert few.value == many.value == 1 and few.low < 0.7 and 0.95 < many.low < 1
    turned = auc_interval(np.arange(5.0), np.arange(5.0) + 10)
    assert turned.value == 0 and turned.high == pytest.approx(1 - few.low)


def test_a_low_false_positive_rate_takes_enough_held_out_patients() -> None:
    members, rng = np.full(40, 99.0), np.random.default_rng(0)
    enough, short = found_at(members, rng.normal(size=99), 0.01), found_at(members, rng.normal(size=98), 0.01)
    assert enough.resolved and enough.reached == pytest.approx(0.01) and not short.resolved
    assert enough.wanted == 99 and found_at(members, rng.normal(size=50), 0.001).wanted == 999
    assert short.reached == pytest.approx(1 / 99) and short.accused == 0
    assert short.false_positives.high > 0.03  # none of 98 does not mean none
    assert enough.found.value == 1 and enough.found.low < 1


def test_the_threshold_lets_the_stated_share_of_further_patients_pass() -> None:
    rng, passed = np.random.default_rng(1), []
    for _ in range(300):
        one = found_at(rng.normal(size=2000), rng.normal(size=199), 0.01, draws=10)
        passed.append(one.found.value)  # these members were drawn like the others: all are false positives
    assert np.mean(passed) == pytest.approx(0.01, abs=0.0015)


def test_p_values_are_those_of_mann_whitney_and_uniform_without_memory() -> None:
    rng = np.random.default_rng(2)
    members, others = rng.normal(0.5, 1, (30, 1)), rng.normal(0, 1, (35, 1))
    found, best = permutation_p(members, others, 20_000)
    wanted = mannwhitneyu(members[:, 0], others[:, 0], alternative="greater").pvalue
    assert found[0] == pytest.approx(wanted, rel=0.15) and best == found[0]
    drawn = [permutation_p(rng.normal(size=(12, 3)), rng.normal(size=(12, 3)), 200, seed)[1] for seed in range(200)]
    below = sum(p <= 0.05 for p in drawn)
    assert below <= binom.ppf(0.999, 200, 0.05)


def test_the_best_of_several_scores_pays_for_the_choice() -> None:
    rng = np.random.default_rng(5)
    members, others = rng.normal(size=(20, 8)), rng.normal(size=(20, 8))
    single, best = permutation_p(members, others, 2000)
    assert best > single.min()


def test_seeds_decide_every_number() -> None:
    rng = np.random.default_rng(6)
    members, others = {"a": rng.normal(1, 1, 20)}, {"a": rng.normal(0, 1, 20)}
    first, second = (separations(members, others, seed=4, permutations=500) for _ in range(2))
    assert first == second and first != separations(members, others, seed=5, permutations=500)


def test_the_share_that_no_copy_among_n_excludes_is_exact() -> None:
    share = excluded_share(200)
    assert binom.pmf(0, 200, share) == pytest.approx(0.05)
    assert excluded_share(1) == pytest.approx(0.95)


def test_a_best_score_in_either_direction_holds_its_level() -> None:
    rng = np.random.default_rng(3)
    p_values = [
        permutation_p(rng.normal(size=(20, 3)), rng.normal(size=(30, 3)), 200, seed, either_way=True)[1]
        for seed in range(300)
    ]
    assert np.mean(np.array(p_values) <= 0.05) < 0.09
    low = rng.normal(size=(20, 3)) - np.array([3, 0, 0])
    assert permutation_p(low, rng.normal(size=(30, 3)), 200, 0, either_way=True)[1] < 0.01
    assert permutation_p(low, rng.normal(size=(30, 3)), 200, 0)[1] > 0.01
