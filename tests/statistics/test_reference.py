# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The reference control: are samples nearer to training patients than to patients whom nobody trained on?"""

from __future__ import annotations

import numpy as np
import pytest

from monai_memo.benchmark.reference_coverage import Setting, measure
from monai_memo.statistics.reference import (
    NearestPatients,
    chance_all_in_training,
    detectable_excess,
    look_alike_share,
    patients_needed,
    reference_control,
)


def nearest(training: list[float], unseen: list[float], sizes: tuple[int, int] = (50, 50)) -> NearestPatients:
    """Each image with a patient of its own in one of the galleries."""
    first, second = np.arange(len(training)), sizes[0] + np.arange(len(unseen))
    sides = np.arange(sum(sizes)) < sizes[0]
    return NearestPatients(
        np.array(training + unseen), np.r_[first, second].astype(int), sides, np.ones(sum(sizes), int)
    )


def test_what_training_patients_get_beyond_unseen_ones_was_copied() -> None:
    found = reference_control(nearest([0.95] * 30, [0.95] * 10), 0.9)
    assert (found.to_training, found.to_unseen, found.rate, found.expected) == (30, 10, 0.75, 0.25)
    assert found.excess.value == pytest.approx(0.5) and 0.1 < found.excess.low < 0.4 < 0.6 < found.excess.high < 0.9
    assert found.p_value < 0.005


def test_look_alikes_in_proportion_are_no_copies() -> None:
    found = reference_control(nearest([0.95] * 40, [0.95] * 10, (200, 50)), 0.9)
    assert found.excess.value == pytest.approx(0.0) and found.excess.low < 0 < found.excess.high
    assert found.p_value > 0.2


def test_images_below_the_threshold_do_not_count() -> None:
    found = reference_control(nearest([0.95] * 5 + [0.5] * 40, [0.95] * 5), 0.9)
    assert (found.to_training, found.to_unseen, found.excess.value) == (5, 5, 0.0)
    assert found.p_value > 0.2
    none = reference_control(nearest([0.5] * 20, [0.5]), 0.9)
    assert none.p_value == 1.0 and none.excess.value == 0 and none.excess.low < 0 < none.excess.high


def test_one_patient_near_to_every_sample_proves_nothing() -> None:
    """A collapsed generator: the one patient can stand in either gallery by chance."""
    one = NearestPatients(np.full(200, 0.95), np.zeros(200, int), np.arange(100) < 50, np.ones(100, int))
    many = NearestPatients(np.full(200, 0.95), np.arange(200) % 50, np.arange(100) < 50, np.ones(100, int))
    assert reference_control(one, 0.9).p_value > 0.4
    assert reference_control(many, 0.9).p_value < 0.001
    assert reference_control(one, 0.9).excess.low < reference_control(many, 0.9).excess.low


def test_few_copies_among_look_alikes_are_seen_at_a_higher_threshold() -> None:
    chance = [0.91] * 20
    hidden = reference_control(nearest([0.99] * 7 + chance, chance), 0.9)
    mixed = reference_control(nearest([0.91] * 7 + chance, chance), 0.9)
    assert hidden.p_value < 0.05 < mixed.p_value


def test_images_of_one_patient_change_places_together() -> None:
    """Ten images of one patient are one reason to believe, not ten."""
    sides, sizes = np.arange(20) < 10, np.full(20, 10)
    together = NearestPatients(np.full(10, 0.95), np.zeros(10, int), sides, sizes)
    apart = NearestPatients(np.full(10, 0.95), np.arange(10), sides, sizes)
    assert reference_control(together, 0.9).p_value > 0.4 and reference_control(apart, 0.9).p_value < 0.001


def test_held_out_patients_limit_what_can_be_said() -> None:
    assert chance_all_in_training(3, 2, 5) == 0.0
    assert chance_all_in_training(2, 3, 2) == pytest.approx(3 / 5 * 2 / 4)
    needed = [patients_needed(1000, unseen) for unseen in (20, 100, 1000, 10_000)]
    assert needed == sorted(needed, reverse=True) and needed[-1] == 2 and needed[0] > 100
    few, many = (
        detectable_excess(nearest([0.95] * 20, [0.95] * 5, (400, n)), 25, patients_needed(400, n)) for n in (20, 400)
    )
    assert few > 2 * many > 0


def test_unequal_numbers_of_images_are_told() -> None:
    sides = np.arange(40) < 20
    found = NearestPatients(np.full(5, 0.95), np.arange(5), sides, np.where(sides, 4, 1))
    assert found.ratio == 4.0
    (warning,) = reference_control(found, 0.9).warnings
    assert "4.0 images of each training patient and 1.0 of each held-out patient" in warning


def test_the_list_holds_images_that_no_unseen_patient_rivals() -> None:
    found = nearest([0.99] * 40 + [0.92] * 10, [0.92] * 10)
    share = look_alike_share(found)
    assert share[:50].tolist() == pytest.approx([1 / 40] * 40 + [11 / 50] * 10)
    assert (share[50:] == 1).all()
    assert (look_alike_share(nearest([0.99] * 40, [], (400, 20))) > 0.4).all()  # one in 20 would make 20 look-alikes


@pytest.mark.parametrize(("patients", "on_list"), [(1, 0), (10, 0), (25, 50)])
def test_a_patient_who_is_near_to_many_samples_is_one_draw_however_many_there_are(patients: int, on_list: int) -> None:
    found = NearestPatients(np.full(50, 0.99), np.arange(50) % patients, np.arange(80) < 40, np.ones(80, dtype=int))
    assert (look_alike_share(found) <= 0.05).sum() == on_list


def test_lists_hold_few_look_alikes_where_some_patients_are_near_to_all_samples() -> None:
    false = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        hubs = rng.permutation(80)[:3]  # of either side, by one draw
        nearest_hub = hubs[rng.integers(0, 3, 60)]
        found = NearestPatients(rng.random(60), nearest_hub, np.arange(80) < 40, np.ones(80, dtype=int))
        false.append((look_alike_share(found) <= 0.05).any())
    assert np.mean(false) <= 0.05


def test_galleries_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="training and held-out patients"):
        NearestPatients(np.ones(2), np.zeros(2, int), np.ones(3, bool), np.ones(3, int))
    with pytest.raises(ValueError, match="numbers from 0 to 2"):
        NearestPatients(np.ones(2), np.array([0, 3]), np.array([True, False, False]), np.ones(3, int))
    with pytest.raises(ValueError, match="one nearest patient"):
        NearestPatients(np.ones(2), np.zeros(3, int), np.array([True, False, False]), np.ones(3, int))


@pytest.mark.parametrize(("training", "heldout"), [(30, 300), (100, 100), (300, 30)])
def test_simulated_audits_in_which_nothing_was_copied(training: int, heldout: int) -> None:
    found = measure(Setting(training, heldout, samples=100), 60, seed=3)
    assert found["coverage"] >= 0.85 and found["rejected"] <= 0.13
    assert abs(found["mean_excess"]) < 0.08


def test_simulated_audits_find_what_was_copied() -> None:
    found = measure(Setting(100, 100, copied=0.3), 30, seed=3)
    assert found["rejected"] == 1.0 and found["coverage"] >= 0.85
    assert found["mean_excess"] == pytest.approx(0.3, abs=0.03)
    assert found["copies_on_list"] > 0.9 and found["false_on_list"] < 0.1
