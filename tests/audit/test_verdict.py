# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from monai_memo.audit.result import Count, Estimate
from monai_memo.audit.verdict import verdict_for


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
