# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.exceedance import exceedance
from monai_memo.statistics.own_references import OwnReferences


def test_images_above_the_held_out_quantile_are_counted() -> None:
    heldout = np.arange(1.0, 100.0)  # the 95th percentile of a hundred lies at 95
    found = exceedance(np.array([94.0, 95.5, 97.0, 200.0]), heldout, np.arange(99))
    assert found.tau.value == pytest.approx(95, abs=0.5)
    assert found.n == 3 and found.rate.value == 0.75
    assert found.control.value == pytest.approx(4 / 99, abs=0.02)
    assert found.excess.value == pytest.approx(found.rate.value - found.control.value)
    assert found.excess.low > 0.2


def test_none_of_many_is_no_proof_of_none() -> None:
    found = exceedance(np.zeros(100), np.arange(1.0, 100.0), np.arange(99))
    assert found.n == 0 and found.rate.high >= 0.0299


@pytest.mark.parametrize("patients", [30, 200])
def test_with_nothing_copied_the_excess_covers_zero(patients: int) -> None:
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        found = exceedance(rng.gumbel(size=300), rng.gumbel(size=patients), np.arange(patients), draws=300, seed=seed)
        covered.append(found.excess.low <= 0 <= found.excess.high)
    assert np.mean(covered) >= 0.92


def test_images_of_one_patient_come_and_go_together() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=25)
    alone = exceedance(np.zeros(50), values, np.arange(25))
    together = exceedance(np.zeros(50), np.repeat(values, 8), np.repeat(np.arange(25), 8))
    spread = [one.excess.high - one.excess.low for one in (alone, together)]
    assert spread[1] == pytest.approx(spread[0], rel=0.15)


def test_images_that_are_near_to_everybody_raise_the_threshold() -> None:
    """As many of them come above it among training patients as among unseen ones: no excess."""
    rng = np.random.default_rng(0)
    heldout, patients = rng.gumbel(size=200), np.arange(200)
    covered, called = [], []
    for seed in range(100):
        scores, unseen = (rng.gumbel(size=300) + 1.5 for _ in range(2))
        alone = exceedance(scores, heldout, patients, draws=200, seed=seed)
        found = exceedance(scores, heldout, patients, draws=200, seed=seed, own=OwnReferences(unseen, 1))
        assert alone.excess.low > 0 and found.tau_control == alone.tau.value < found.tau.value
        covered.append(found.excess.low <= 0 <= found.excess.high)
        called.append(found.rate.value)
    assert np.mean(covered) >= 0.92 and np.mean(called) == pytest.approx(0.05, abs=0.01)


def test_a_small_unseen_cohort_asks_for_more() -> None:
    """A gallery ten times as large comes nearer by chance."""
    own = np.random.default_rng(0).gumbel(size=500)
    at = [exceedance(own, own - 5, np.arange(500), own=OwnReferences(own, ratio)).tau.value for ratio in (1, 10)]
    assert at[0] < at[1]


def test_what_is_nearer_to_training_patients_is_still_found() -> None:
    rng = np.random.default_rng(0)
    scores = np.r_[rng.gumbel(size=90), np.full(10, 12.0)]
    found = exceedance(scores, rng.gumbel(size=200), np.arange(200), own=OwnReferences(rng.gumbel(size=100), 1))
    assert found.n >= 10 and found.excess.low > 0
