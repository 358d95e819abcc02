# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Floor and coverage, in a short version; the long one is ``monai-memo coverage`` (docs/statistics.md)."""

from __future__ import annotations

import pytest

from monai_memo.statistics.calibration import expected_floor
from monai_memo.statistics.simulation import World, coverage, null_rates

RATIOS = [(40, 400, 400), (100, 300, 300), (200, 200, 200), (300, 100, 100), (400, 40, 400)]


@pytest.mark.parametrize(("n_heldout", "n_synthetic", "n_train"), RATIOS)
def test_floor_of_both_calibrations(n_heldout: int, n_synthetic: int, n_train: int) -> None:
    world = World(n_train, n_heldout, n_synthetic, copy_share=0.0, dim=64, decay=0.0)
    copies, memorized = null_rates(world, "size_matched", audits=60, seed=0)
    assert copies == pytest.approx(0.05, abs=0.015)
    assert memorized == pytest.approx(0.05, abs=0.015)
    copies, memorized = null_rates(world, "paper", audits=60, seed=0)
    assert copies == pytest.approx(expected_floor(n_train, n_heldout), abs=0.02)
    assert memorized == pytest.approx(expected_floor(n_synthetic, n_heldout), abs=0.02)


@pytest.mark.parametrize("mode", ["size_matched", "paper"])
def test_intervals_cover(mode: str) -> None:
    # 120 audits: a coverage of 95 % comes out between 90 % and 99 % with a probability of about 99 %.
    table = coverage(World(n_train=300, n_heldout=150, n_synthetic=150), mode, audits=120, n_bootstrap=200, fresh=2000)
    for quantity, row in table.items():
        assert 0.90 <= row["coverage"] <= 0.995, (quantity, row)
        assert row["mean"] == pytest.approx(row["truth"], abs=0.02), (quantity, row)


def test_several_images_of_a_patient_widen_the_intervals() -> None:
    one = coverage(World(), audits=12, n_bootstrap=200, fresh=500)
    several = coverage(World(images_per_patient=4), audits=12, n_bootstrap=200, fresh=500)
    assert several["tau"]["width"] > 1.15 * one["tau"]["width"]
