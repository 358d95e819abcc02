# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_memo.audit.result import Count, Estimate
from monai_memo.audit.verdict import unread_training, verdict_for


def verdict(excess: Estimate, found: int | None = 45) -> dict[str, str]:
    copies = Count(10, 6, 15, 100, Estimate(0.1, 0.06, 0.15))
    sensitivity = None if found is None else {"planted": 50, "found": found, "rate": Estimate(found / 50, 0, 1)}
    return verdict_for(copies, Estimate(0.05, 0.02, 0.08), excess, sensitivity)


@pytest.mark.parametrize(
    ("excess", "found", "level"),
    [
        (Estimate(0.10, 0.01, 0.2), 45, "copies_found"),
        (Estimate(0.10, 0.01, 0.2), 10, "copies_found"),  # a weak detector that finds some has found some
        (Estimate(0.00, -0.02, 0.02), 45, "no_excess"),
        (Estimate(0.00, -0.02, 0.02), None, "no_excess"),
        (Estimate(0.00, -0.02, 0.02), 24, "inconclusive"),
        (Estimate(0.03, -0.02, 0.08), 45, "inconclusive"),
    ],
)
def test_levels(excess: Estimate, found: int | None, level: str) -> None:
    assert verdict(excess, found)["level"] == level


def test_words_carry_the_numbers_and_never_promise_safety() -> None:
    assert "10 of 100 synthetic images (10.0 %)" in verdict(Estimate(0.1, 0.01, 0.2))["headline"]
    assert "up to 2.0 % cannot be excluded" in verdict(Estimate(0.0, -0.02, 0.02))["headline"]
    for excess in (Estimate(0.1, 0.01, 0.2), Estimate(0.0, -0.02, 0.02), Estimate(0.03, -0.02, 0.08)):
        words = " ".join(verdict(excess).values()).lower()
        assert "safe" not in words and "anonym" not in words


def test_nothing_found_among_files_that_were_not_read_is_not_conclusive() -> None:
    assert unread_training(95, 5) == [] and unread_training(100, 0) == []
    (concern,) = unread_training(40, 20)
    assert concern.startswith("20 of 60 training images (33.3 %) could not be read")
    copies, control = Count(0, 0, 1, 100, Estimate(0, 0, 0.01)), Estimate(0, 0, 0.01)
    found = verdict_for(copies, control, Estimate(0.0, -0.02, 0.02), None, concerns=[concern])
    assert found["level"] == "inconclusive" and concern in found["detail"]
    # Copies that were found are copies, whatever else was missed.
    assert verdict_for(copies, control, Estimate(0.1, 0.01, 0.2), None, concerns=[concern])["level"] == "copies_found"


@pytest.mark.parametrize("excess", [Estimate(0.1, 0.01, 0.2), Estimate(0.0, -0.02, 0.02), Estimate(0.03, -0.02, 0.08)])
def test_synthetic_images_that_were_not_read_are_not_covered(excess: Estimate) -> None:
    copies, control = Count(0, 0, 1, 100, Estimate(0, 0, 0.01)), Estimate(0, 0, 0.01)
    assert (
        "3 synthetic images could not be read: this verdict does not cover them"
        in (verdict_for(copies, control, excess, None, unread=3)["detail"])
    )
    assert "could not be read" not in verdict_for(copies, control, excess, None)["detail"]
