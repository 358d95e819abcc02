# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.benchmark.own_coverage import nearest_of, simulated
from monai_memo.statistics.hubs import FEWEST_PATIENTS, MOST, best_without_hubs, usual_nearness, without_hubs
from monai_memo.statistics.own_references import OwnReferences
from monai_memo.statistics.rates import audit_rates
from monai_memo.statistics.similarities import Floats, Similarities

PATIENTS, SAMPLES = 40, 60


def galleries(hub: float) -> tuple[Floats, Floats]:
    """Similarities to training and held-out patients, ``(patients, samples)``; one training patient is near to all."""
    rng = np.random.default_rng(0)
    values = 1 + 0.1 * rng.standard_normal((2, PATIENTS, SAMPLES))
    values[0, 7] += hub
    return np.tanh(values[0]), np.tanh(values[1])


def called(to_training: Floats, to_unseen: Floats, hubs: bool) -> np.ndarray:
    """Which samples an audit calls, by a search that scores five candidates."""
    patients = np.arange(PATIENTS)
    held = np.full((30, 5), 0.1)
    found, usual = nearest_of(to_training), None
    if hubs:
        usual, found = usual_nearness(found[1]), best_without_hubs(*found, patients)
    sims = Similarities.from_candidates(found, (np.tile(np.arange(5), (30, 1)), held), patients, np.arange(30))
    images, similarity = nearest_of(to_unseen)
    own = (
        OwnReferences.among((images, similarity), patients, PATIENTS, usual=usual)
        if hubs else OwnReferences(similarity[:, 0], 1)
    )  # fmt: skip
    return sims.synthetic_to_training > audit_rates(sims, n_bootstrap=10, own=own).tau.value


def test_one_training_patient_who_is_near_to_all_samples_makes_no_copies_of_them() -> None:
    assert called(*galleries(0.25), hubs=False).mean() > 0.3
    assert called(*galleries(0.25), hubs=True).mean() < 0.1


def test_copies_of_single_patients_are_called_as_before() -> None:
    to_training, to_unseen = galleries(0.25)
    to_training[7] = np.tanh(np.arctanh(to_training[7]) - 0.25)
    to_training[np.arange(20), np.arange(20)] = np.tanh(2.0)
    assert called(to_training, to_unseen, hubs=True)[:20].all()


def test_a_collapsed_generator_whose_samples_are_all_copies_of_one_patient_is_not_excused() -> None:
    to_training, to_unseen = galleries(0.0)
    to_training[7] = np.tanh(2.5)
    assert called(to_training, to_unseen, hubs=True).all()


def test_no_more_is_taken_off_than_look_alikes_gain_and_only_from_patients_near_to_many() -> None:
    images, similarity = nearest_of(galleries(0.8)[0])
    off = np.arctanh(similarity) - np.arctanh(without_hubs(images, similarity, np.arange(PATIENTS)))
    assert off[images == 7] == pytest.approx(MOST)
    assert off[images != 7] == pytest.approx(0)


def test_images_of_one_patient_count_once_and_missing_candidates_stay_missing() -> None:
    images = np.tile([0, 1, 2, -1], (12, 1))
    similarity = np.tile([0.9, 0.89, 0.6, -1.0], (12, 1))
    patients = np.r_[0, 0, 1, 2:FEWEST_PATIENTS]
    lowered = without_hubs(images, similarity, patients)
    assert (lowered[:, 3] == -1).all() and (lowered[:, 2] == 0.6).all()
    assert (lowered[:, 0] > lowered[:, 1]).all() and (lowered[:, 0] < 0.9).all()
    two = slice(0, 6)  # of twelve samples: patient 0 is near to these alone
    images[6:, :2] = -1
    few = without_hubs(images[:12], np.where(images < 0, -1.0, similarity), patients)
    assert (few[two, 0] < 0.9).all()


def test_few_samples_say_nothing_of_hubs() -> None:
    images, similarity = nearest_of(galleries(0.8)[0][:, :4])
    assert (without_hubs(images, similarity, np.arange(PATIENTS)) == similarity).all()


def test_in_a_tiny_gallery_everybody_is_near_to_many_and_nobody_counts_for_less() -> None:
    to_training = galleries(0.8)[0][: FEWEST_PATIENTS - 1]
    images, similarity = nearest_of(to_training)
    assert (without_hubs(images, similarity, np.arange(len(to_training))) == similarity).all()


def test_pairs_that_were_not_compared_are_no_usual_nearness_and_stay_so() -> None:
    similarity = np.tile([0.9, 0.8, -1.0], (20, 1))
    assert usual_nearness(similarity) == pytest.approx(np.arctanh(0.8))
    lowered = without_hubs(np.tile([0, 1, 2], (20, 1)), similarity, np.arange(30))
    assert (lowered[:, 2] == -1).all() and (lowered[:, 1] == 0.8).all() and (lowered[:, 0] < 0.9).all()


@pytest.mark.parametrize("ratio", [1, 4])
def test_a_small_held_out_cohort_is_measured_by_the_same_yardstick(ratio: int) -> None:
    rng = np.random.default_rng(ratio)
    rates = [audit_rates(sims, n_bootstrap=10, own=own).copies.value
             for sims, own in (simulated(rng, ratio, 0.3, hubs=0.3) for _ in range(12))]  # fmt: skip
    assert np.mean(rates) < 0.12
