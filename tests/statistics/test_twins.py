# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monai_memo.statistics.twins import area_under_curve, found_at, summarise


def unit(rng: np.random.Generator, copied: float, called: tuple[int, int]) -> dict[str, Any]:
    twin = rng.normal(0, 1, 200)
    own = np.where(rng.random(200) < copied, 8.0, rng.normal(0, 1, 200))
    audit = {
        side: {
            "called": count,
            "called_by_control": min(2 * count, 200),
            "called_in_part": 4,
            "of": 200,
            "excess": [share, share - 0.05, share + 0.05],
            "p_value": 1.0 - share,
        }
        for side, count, share in zip(("own", "twin"), called, (copied, 0.0), strict=True)
    }
    scores = {"ours": {"own": own.tolist(), "twin": twin.tolist()}}
    return {"generator": "g", "steps": 1, "scores": scores, "audit": audit}


def test_without_copies_the_curve_is_the_diagonal_and_copies_are_found_in_their_share() -> None:
    rng = np.random.default_rng(0)
    nothing = summarise([unit(rng, 0.0, (10, 10)) for _ in range(6)])[0]
    value, low, high = nothing["methods"]["ours"]["auc"]
    assert low < 0.5 < high and low < value < high
    assert nothing["samples"] == 1200 and nothing["trainings"] == 6
    half = summarise([unit(rng, 0.5, (105, 10)) for _ in range(6)])[0]
    assert half["methods"]["ours"]["found_at_0.01"][0] == pytest.approx(0.505, abs=0.06)
    assert half["called"]["own"][0] == pytest.approx(0.525)
    assert half["called"]["twin"][1] <= 0.05 <= half["called"]["twin"][2]
    assert half["called_by_control"]["twin"][0] == pytest.approx(0.1)
    assert half["called_in_part"]["own"][0] == pytest.approx(0.02)


def test_ties_count_a_half() -> None:
    same = np.ones(5)
    assert area_under_curve(same, same) == 0.5 and found_at(same, same, 0.05) == 0.0


def test_trainings_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    alike = summarise([unit(rng, 0.5, (100, 10)) for _ in range(6)])[0]["called"]["own"]
    unlike = summarise([unit(rng, 0.5, (200 * (i % 2), 10)) for i in range(6)])[0]["called"]["own"]
    assert unlike[2] - unlike[1] > 3 * (alike[2] - alike[1])


def test_none_of_a_few_samples_does_not_mean_none() -> None:
    rng = np.random.default_rng(2)
    seen = {"excess": [1.0, 0.9, 1.0], "p_value": 0.01}
    few = {
        "twin": {"called": 0, "called_by_control": 1, "called_in_part": 0, "of": 10, **seen},
        "own": {"called": 10, "called_by_control": 10, "called_in_part": 0, "of": 10, **seen},
    }
    row = summarise([{**unit(rng, 1.0, (0, 0)), "audit": few} for _ in range(2)])[0]
    assert row["called"]["twin"][2] > 0.05 and row["called"]["own"][1] < 0.95
    assert row["called"]["twin"][0] == 0 and row["methods"]["ours"]["found_at_0.01"][1] < 1


def test_the_reference_control_of_all_trainings_is_summed_up() -> None:
    rng = np.random.default_rng(3)
    row = summarise([unit(rng, share, (0, 0)) for share in (0.2, 0.4, 0.99)])[0]
    value, low, high = row["excess"]
    assert value == pytest.approx(0.53) and low < 0.3 and high > 0.75
    assert row["shown"] == {"own": 1, "twin": 0}
