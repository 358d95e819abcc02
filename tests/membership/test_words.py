# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np

from monai_memo.membership.attack import Attack
from monai_memo.membership.words import warnings
from monai_memo.statistics.membership import separations

COHORTS = {name: {"patients_known": True} for name in ("training", "heldout")}


def attack(shift: float) -> Attack:
    """With a second score that is so much higher among members."""
    rng = np.random.default_rng(0)
    members = {"first": rng.normal(size=60), "second": rng.normal(size=60) + shift}
    others = {name: rng.normal(size=60) for name in members}
    model, p_any = separations(members, others, either_way=True)
    pixels = separations({"": rng.normal(size=60)}, {"": rng.normal(size=60)})[0][""]
    return Attack("first", model, p_any, pixels, None, None, {}, ([], []))


def turned(shift: float) -> list[str]:
    return [said for said in warnings(attack(shift), COHORTS, (1, 1)) if "below 0.5" in said]


def test_a_score_that_members_have_less_of_is_told_of_and_counts() -> None:
    found = attack(-2)
    assert found.model["second"].auc.high < 0.5 and found.model["first"].p_value > 0.05
    assert found.shown  # by the second one, turned round
    (said,) = turned(-2)
    assert "second: 0.12" in said and "first" not in said and "they tell the cohorts apart" in said


def test_one_low_score_of_many_is_not_said_to_tell_anybody() -> None:
    found = replace(attack(-2), p_any=0.2)
    (said,) = [text for text in warnings(found, COHORTS, (1, 1)) if "below 0.5" in text]
    assert not found.shown and "chance alone brings that about" in said and "tell the cohorts apart" not in said


def test_scores_in_the_direction_that_is_meant_and_guesses_are_not_told_of() -> None:
    assert turned(2) == turned(0) == []
    assert attack(2).shown and not attack(0).shown
