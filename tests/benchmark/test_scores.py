# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.benchmark.scores import kind_score, markdown_table, threshold_at


def test_threshold_lets_exactly_the_rate_pass() -> None:
    negatives = np.random.default_rng(0).permutation(np.arange(1000.0))
    for rate, allowed in ((0.01, 10), (0.001, 1)):
        threshold = threshold_at(negatives, rate)
        assert threshold is not None and (negatives > threshold).sum() == allowed


def test_perfect_and_chance_detectors() -> None:
    rng = np.random.default_rng(1)
    negatives = rng.uniform(size=1000)
    perfect = kind_score("flip", np.full(50, 2.0), negatives, np.ones(50, dtype=bool), n_bootstrap=50)
    assert perfect.auc.value == 1.0
    assert perfect.tpr["0.001"] is not None and perfect.tpr["0.001"].value == 1.0
    assert perfect.retrieval.low < 1.0
    chance = kind_score("noise", rng.uniform(size=2000), negatives, np.zeros(2000, dtype=bool), n_bootstrap=50)
    assert chance.auc.low <= 0.5 <= chance.auc.high
    assert chance.tpr["0.01"] is not None and chance.tpr["0.01"].value == pytest.approx(0.01, abs=0.01)


def test_too_few_negatives_say_so() -> None:
    score = kind_score("blur", np.ones(5), np.zeros(150), np.ones(5, dtype=bool), n_bootstrap=20)
    assert score.tpr["0.001"] is None and score.tpr["0.01"] is not None
    assert "too few negatives" in markdown_table([score])
    with pytest.raises(ValueError, match="blur: scores need"):
        kind_score("blur", np.ones(0), np.zeros(5), np.ones(0, dtype=bool))


def test_ties_count_in_part() -> None:
    negatives = np.repeat([0.0, 1.0, 2.0], [90, 8, 2]).astype(float)  # at 1 % half of those at 2 pass
    score = kind_score("flip", np.array([2.0, 2.0, 2.0, 2.0, 3.0, 0.0]), negatives, np.ones(6, dtype=bool))
    found = score.tpr["0.01"]
    assert found is not None and found.value == pytest.approx((1 + 4 / 2) / 6)
