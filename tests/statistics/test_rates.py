# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.errors import CalibrationError
from monai_memo.statistics.intervals import patient_weights
from monai_memo.statistics.rates import audit_rates, thresholds
from monai_memo.statistics.similarities import Similarities
from monai_memo.statistics.simulation import World


def by_hand() -> Similarities:
    """Five training, two held-out and three synthetic images; small enough to work out on paper."""
    training_heldout = np.array([[0.10, 0.20], [0.30, 0.10], [0.40, 0.35], [0.50, 0.20], [0.60, 0.55]])
    training_synthetic = np.array(
        [[0.57, 0.10, 0.20], [0.59, 0.20, 0.10], [0.10, 0.30, 0.20], [0.20, 0.95, 0.58], [0.30, 0.20, 0.10]]
    )
    return Similarities.from_matrices(training_heldout, training_synthetic)


def test_paper_calibration_by_hand() -> None:
    # Nearest held-out: 0.20 0.30 0.40 0.50 0.60. 95th percentile: 3.8 steps, 0.50 + 0.8 * 0.10 = 0.58.
    # Nearest synthetic of the training images: 0.57 0.59 0.30 0.95 0.30: two lie above 0.58.
    # Nearest training of the synthetic images: 0.59 0.95 0.58: two lie above 0.58.
    rates = audit_rates(by_hand(), mode="paper")
    assert rates.tau.value == np.quantile([0.2, 0.3, 0.4, 0.5, 0.6], 0.95)
    assert f"{rates.tau.value:.12f}" == "0.580000000000"
    assert rates.n_memorized == 2
    assert rates.memorized.value == 2 / 5
    assert rates.n_copies == 2
    assert rates.copies.value == 2 / 3
    assert rates.tau_memorized.value == rates.tau.value


def test_paper_calibration_at_another_quantile_by_hand() -> None:
    # Median of the nearest held-out similarities: 0.40; three training images lie above, all synthetic ones do.
    rates = audit_rates(by_hand(), mode="paper", quantile=0.5)
    assert rates.tau.value == 0.40
    assert (rates.n_memorized, rates.n_copies) == (3, 3)


def test_size_matched_by_hand() -> None:
    rng = np.random.default_rng(0)
    training_heldout = rng.permuted(np.linspace(0.0, 0.99, 100 * 99).reshape(100, 99))
    synthetic = np.full((100, 99), -0.5)
    synthetic[4, 7], synthetic[5, 8] = 0.9999, 0.995
    sims = Similarities.from_matrices(training_heldout, synthetic)
    tau, tau_memorized = thresholds(sims)
    # 99 held-out images: position 0.95 * 100 = 95, the fifth largest. 100 training images: 0.05 * 101 = 5.05 from top.
    assert tau == np.sort(sims.heldout_to_training)[-5]
    ranked = np.sort(sims.training_to_nearest_heldout)[::-1]
    assert tau_memorized == pytest.approx(ranked[4] + 0.05 * (ranked[5] - ranked[4]))
    rates = audit_rates(sims)
    assert (rates.n_copies, rates.n_memorized) == (2, 2)


def test_patients_with_several_images_are_counted_once() -> None:
    sims = by_hand()
    patients = np.array([0, 0, 1, 1, 2])
    together = Similarities(**{**vars(sims), "training_patients": patients})
    rates = audit_rates(together, mode="paper")
    assert (rates.n_memorized, rates.n_memorized_patients) == (2, 2)
    same = Similarities(**{**vars(sims), "training_patients": np.array([0, 1, 2, 1, 3])})
    assert audit_rates(same, mode="paper").n_memorized_patients == 1
    assert audit_rates(same, mode="paper").memorized_patients.value == 1 / 4


def test_zero_copies_still_allow_three_of_m() -> None:
    rng = np.random.default_rng(3)
    sims = Similarities.from_matrices(rng.uniform(0.5, 0.6, (200, 150)), rng.uniform(0, 0.1, (200, 60)))
    rates = audit_rates(sims)
    assert rates.n_copies == 0 and rates.copies.low == 0.0
    assert rates.copies.high >= 2.995 / 60
    assert rates.n_memorized == 0 and rates.memorized.high >= 2.995 / 200


def test_same_seed_same_numbers_and_other_seed_other_intervals() -> None:
    sims, _ = World().audit(np.random.default_rng(0))
    assert audit_rates(sims, seed=1) == audit_rates(sims, seed=1)
    assert audit_rates(sims, seed=1).copies != audit_rates(sims, seed=2).copies
    assert audit_rates(sims, seed=1).n_copies == audit_rates(sims, seed=2).n_copies


def test_unknown_mode_and_too_few_heldout_are_refused() -> None:
    with pytest.raises(ValueError, match="calibration must be one of"):
        audit_rates(by_hand(), mode="exact")
    with pytest.raises(CalibrationError, match="2 held-out patients"):
        audit_rates(by_hand())


def test_small_heldout_cohorts_are_named() -> None:
    sims, _ = World(n_train=60, n_heldout=30, n_synthetic=300).audit(np.random.default_rng(0))
    rates = audit_rates(sims)
    assert any("Only 30 held-out patients" in message for message in rates.warnings)
    assert any("N_mem may be too low" in message for message in rates.warnings)
    assert rates.control_memorized is None or rates.control_memorized.value >= 0


def test_control_has_no_excess_when_nothing_is_copied_and_some_when_it_is() -> None:
    null, _ = World(copy_share=0.0, n_synthetic=400, n_heldout=400).audit(np.random.default_rng(4))
    rates = audit_rates(null)
    assert rates.excess_copies.low <= 0 <= rates.excess_copies.high
    assert rates.excess_memorized is not None and rates.excess_memorized.low <= 0 <= rates.excess_memorized.high
    copied, _ = World(copy_share=0.3, n_synthetic=400, n_heldout=400).audit(np.random.default_rng(4))
    assert audit_rates(copied).excess_copies.low > 0.15


def test_paper_control_shows_the_floor() -> None:
    sims, _ = World(n_train=900, n_heldout=220, n_synthetic=300, copy_share=0.0, dim=64, decay=0.0).audit(
        np.random.default_rng(5)
    )
    rates = audit_rates(sims, mode="paper")
    assert rates.copies.value > 0.12
    assert rates.excess_copies.low <= 0 <= rates.excess_copies.high


@pytest.mark.parametrize("n_heldout", [19, 30])
def test_few_heldout_patients_do_not_make_copies_of_chance(n_heldout: int) -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sims = Similarities.from_matrices(rng.normal(size=(80, n_heldout)), rng.normal(size=(80, 400)))
        alarms += audit_rates(sims, n_bootstrap=200, seed=seed).excess_copies.low > 0
    assert alarms <= 4  # 2.5 % are intended; without the beta distribution of what passes tau it was every fourth


def test_too_few_synthetic_images_do_not_make_every_candidate_memorized() -> None:
    rng = np.random.default_rng(0)

    def candidates(n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.stack([rng.choice(5000, 5, replace=False) for _ in range(n)])
        return rows, -np.sort(-rng.uniform(0, 0.5, (n, 5)), axis=1)

    synthetic, heldout = candidates(40), candidates(200)
    synthetic[1][:6, 0] = 0.99  # six copies
    sims = Similarities.from_candidates(synthetic, heldout, np.arange(5000), np.arange(200))
    rates = audit_rates(sims, n_bootstrap=100)
    assert rates.tau_memorized.value == rates.tau.value
    assert 6 <= rates.n_memorized <= 12 and rates.excess_memorized is None
    assert any("N_mem counts those" in message for message in rates.warnings)


@pytest.mark.parametrize("mode", ["size_matched", "paper"])
def test_draws_some_at_a_time_are_those_of_all_at_once(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    sims = Similarities.from_matrices(rng.random((60, 40)), rng.random((60, 30)), np.arange(60) // 2)
    whole = audit_rates(sims, mode, n_bootstrap=50, seed=4)
    monkeypatch.setattr("monai_memo.statistics.rates.VALUES_AT_ONCE", 7 * 60 + 1)
    rows: list[int] = []
    original = patient_weights

    def counting(patients: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
        rows.append(draws)
        return original(patients, draws, generator)

    monkeypatch.setattr("monai_memo.statistics.rates.patient_weights", counting)
    parts = audit_rates(sims, mode, n_bootstrap=50, seed=4)
    assert rows == [50, *[7] * 7, 1]  # of the held-out patients at once, then of the training patients
    for name in ("tau", "tau_memorized", "memorized", "memorized_patients", "control_memorized", "excess_copies"):
        one, other = getattr(whole, name), getattr(parts, name)
        np.testing.assert_allclose((one.value, one.low, one.high), (other.value, other.low, other.high), rtol=1e-12)
