# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Why held-out images go through the filter as well: simulated similarities by two detectors, nothing copied."""

from __future__ import annotations

import numpy as np

from monai_memo.statistics.exceedance import exceedance


def two_detectors(number: int, rng: np.random.Generator) -> np.ndarray:
    """``(2, number)`` similarities that agree in part."""
    shared = rng.normal(size=number)
    return np.stack([0.8 * shared + 0.6 * rng.normal(size=number) for _ in range(2)])


def looks(filtered: bool, rng: np.random.Generator) -> tuple[float, bool]:
    """Excess by the second detector after a removal by the first, and whether its interval holds 0."""
    heldout, synthetic = two_detectors(200, rng), two_detectors(300, rng)
    tau = np.quantile(heldout[0], 0.8)  # a strict filter, so that the bias shows
    left = synthetic[1][synthetic[0] <= tau]
    control = heldout[1][heldout[0] <= tau] if filtered else heldout[1]
    found = exceedance(left, control, np.arange(len(control)), draws=200, seed=int(rng.integers(1000)))
    return found.excess.value, found.excess.low <= 0 <= found.excess.high


def test_with_the_same_filter_the_excess_is_zero_where_nothing_was_copied_and_below_it_without() -> None:
    rng = np.random.default_rng(0)
    same = [looks(True, rng) for _ in range(100)]
    assert abs(np.mean([value for value, _ in same])) < 0.01
    assert np.mean([held for _, held in same]) >= 0.9
    other = [looks(False, rng) for _ in range(100)]
    assert np.mean([value for value, _ in other]) < -0.02, "as it was: too good to be true"
