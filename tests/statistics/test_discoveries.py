# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from monai_memo.statistics.discoveries import benjamini_hochberg, conformal_p_values, discover


def test_p_values_of_unseen_images_are_uniform() -> None:
    rng = np.random.default_rng(0)
    below = [conformal_p_values(rng.normal(size=50), rng.normal(size=99)) <= 0.05 for _ in range(400)]
    assert np.mean(below) == pytest.approx(0.05, abs=0.006)


@pytest.mark.parametrize("heldout", [19, 39, 99, 200])
def test_the_list_follows_the_definition_also_where_fractions_meet_the_limit(heldout: int) -> None:
    """In exact numbers: all p-values up to the largest one that is at most its rank's share of the rate."""
    rng = np.random.default_rng(heldout)
    lengths = set()
    for n in (1, 7, 20, 100):
        for rate in (Fraction(1, 20), Fraction(1, 10), Fraction(1, 4)):
            for copied in (0, n // 4, n):
                ranks = np.append(np.ones(copied, int), rng.integers(1, heldout + 2, n - copied))
                exact = sorted(Fraction(int(rank), heldout + 1) for rank in ranks)
                passed = [p for place, p in enumerate(exact, 1) if p <= rate * place / n]
                expected = [bool(passed) and Fraction(int(rank), heldout + 1) <= passed[-1] for rank in ranks]
                found = benjamini_hochberg(ranks / (heldout + 1), float(rate))
                assert found.tolist() == expected
                lengths.add(sum(expected))
    assert {0, 100} <= lengths and len(lengths) > 5


def test_realised_rate_stays_below_the_one_asked_for() -> None:
    rng = np.random.default_rng(2)
    proportions = []
    for _ in range(300):
        scores = np.concatenate([rng.normal(4, 1, 40), rng.normal(size=160)])
        listed = discover(scores, rng.normal(size=400), 0.1).listed
        proportions.append(listed[40:].sum() / max(1, listed.sum()))
    assert 0.02 < np.mean(proportions) <= 0.1


def test_small_heldout_cohorts_are_warned_about() -> None:
    clear = np.full(5, 9.0)
    novel = np.linspace(0, 1, 195)
    found = discover(np.concatenate([clear, novel]), np.linspace(0, 1, 100), 0.05)
    assert not found.listed.any() and found.least == 40
    assert "holds 40 of the 200" in found.warning and "3999 held-out images" in found.warning
    assert discover(clear, np.zeros(10), 0.05).warning.startswith("With 10 held-out images the list")
    assert discover(clear, np.zeros(200), 0.05).warning == "" and discover(clear, np.zeros(200), 0.05).listed.all()


def test_a_list_with_images_on_it_is_not_called_too_short() -> None:
    clear, novel = np.full(50, 9.0), np.linspace(0, 1, 150)
    found = discover(np.concatenate([clear, novel]), np.linspace(0, 1, 100), 0.05)
    assert found.least == 40 and found.listed.sum() == 50 and found.warning == ""


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rate_is_checked(rate: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg(np.array([0.5]), rate)
    with pytest.raises(ValueError, match="at least one held-out"):
        conformal_p_values(np.array([0.5]), np.array([]))


def test_a_patient_counts_once_however_many_images() -> None:
    heldout, patients = np.array([0.1, 0.9, 0.9, 0.9, 0.5]), np.array([7, 3, 3, 3, 7])
    assert conformal_p_values(np.array([0.8, 0.4]), heldout, patients).tolist() == [(1 + 1) / 3, (1 + 1.5) / 3]
    rng = np.random.default_rng(0)
    heldout = rng.normal(size=500)
    np.testing.assert_allclose(
        conformal_p_values(heldout, heldout, np.arange(500)), conformal_p_values(heldout, heldout)
    )
    found = discover(np.ones(40), np.zeros(90), 0.05, np.repeat(np.arange(10), 9))
    assert found.smallest_p == 1 / 11 and "10 held-out patients" in found.warning


def test_the_list_keeps_its_rate_with_many_images_of_few_patients() -> None:
    proportions = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        heldout = (rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 15))).ravel()
        scores = np.concatenate([np.full(20, 9.0), rng.normal(size=200) * np.sqrt(1.09)])
        listed = discover(scores, heldout, 0.2, np.repeat(np.arange(60), 15)).listed
        proportions.append(listed[20:].sum() / max(1, listed.sum()))
    assert np.mean(proportions) <= 0.2
