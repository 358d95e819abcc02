# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One copy among very many images: no rate shows it, and no verdict passes over it."""

from __future__ import annotations

import numpy as np
import pytest

from monai_memo.audit.comparison import Comparison
from monai_memo.audit.parts import Verdict
from monai_memo.audit.single_copies import SingleCopies, single_copies, with_single_copies
from monai_memo.statistics.similarities import Similarities

IMAGES = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float16)
NOTHING: Verdict = {"level": "no_excess", "headline": "No more copies than there.", "detail": "0 of 1,000."}
UNSURE: Verdict = {"level": "inconclusive", "headline": "Not conclusive: 24 %.", "detail": "Too few."}
FOUND: Verdict = {"level": "copies_found", "headline": "Copies found: 30 of 40.", "detail": "Many."}


def compared(by_places: list[float] | None, highest_of_heldout: float = 0.9) -> Comparison:
    n = 20 if by_places is None else len(by_places)
    heldout = np.full((3, 12), 0.7)
    heldout[0, 0] = highest_of_heldout
    sims = Similarities.from_matrices(heldout, np.full((3, n), 0.7))
    return Comparison(sims, np.zeros(n, int), by_places=None if by_places is None else np.array(by_places))


@pytest.mark.parametrize("by_places", [None, [0.7] * 19 + [1.0]])
def test_a_training_image_is_known_by_its_pixels_with_and_without_verification(by_places: list[float] | None) -> None:
    synthetic = np.concatenate([IMAGES[:19], IMAGES[30:31]])
    assert single_copies(synthetic, IMAGES[20:], compared(by_places), 0.9) == SingleCopies(1, 0)
    synthetic[-1, 0, 0, 0] += 0.01
    nearly = single_copies(synthetic, IMAGES[20:], compared(by_places), 0.9)
    assert nearly == SingleCopies(0, 0 if by_places is None else 1)


def test_far_above_is_measured_from_the_most_similar_held_out_image() -> None:
    synthetic, places = IMAGES[:20], [0.7] * 19 + [0.97]
    assert single_copies(synthetic, IMAGES[20:], compared(places), 0.85).far_above == 1
    one_child_under_two_names = compared(places, highest_of_heldout=0.95)
    assert single_copies(synthetic, IMAGES[20:], one_child_under_two_names, 0.85).far_above == 0
    assert single_copies(synthetic, IMAGES[20:], compared(places), 0.95).far_above == 0


@pytest.mark.parametrize("before", [NOTHING, UNSURE])
def test_one_training_image_among_the_samples_is_a_copy_whatever_the_rates_say(before: Verdict) -> None:
    verdict = with_single_copies(before, SingleCopies(1, 3))
    assert verdict["level"] == "copies_found"
    assert verdict["headline"] == "Copies found: 1 synthetic image is a training image, to the last pixel."
    assert before["headline"] in verdict["detail"] and before["detail"] in verdict["detail"]
    assert "2 synthetic images are training images" in with_single_copies(before, SingleCopies(2, 0))["headline"]


def test_what_only_looks_like_a_copy_takes_the_all_clear_away() -> None:
    verdict = with_single_copies(NOTHING, SingleCopies(0, 1))
    assert verdict["level"] == "inconclusive" and NOTHING["headline"] in verdict["detail"]
    assert "1 synthetic image agrees with a training image far more than any held-out image" in verdict["headline"]
    assert with_single_copies(UNSURE, SingleCopies(0, 1)) == UNSURE


def test_nothing_changes_where_copies_are_found_anyway_or_none_stands_out() -> None:
    assert with_single_copies(FOUND, SingleCopies(5, 5)) == FOUND
    assert with_single_copies(NOTHING, SingleCopies(0, 0)) == NOTHING
