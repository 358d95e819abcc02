# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.outstanding import outstanding_threshold


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_duplicates_do_not_push_the_threshold_up(share: float) -> None:
    rng = np.random.default_rng(0)
    ordinary = np.tanh(rng.normal(0.9, 0.1, 500))
    found = outstanding_threshold(np.concatenate([ordinary, rng.uniform(0.98, 1.0, int(share * 500))]))
    assert found is not None
    assert 0.97 <= np.mean(ordinary <= found.threshold) <= 1.0
    assert found.threshold < 0.95 and found.left_out == pytest.approx(share * 500, abs=5)


def test_too_few_images_give_no_threshold() -> None:
    assert outstanding_threshold(np.linspace(0.1, 0.9, 19)) is None


def test_equal_similarities_give_that_similarity() -> None:
    found = outstanding_threshold(np.full(30, 0.5))
    assert found is not None and found.threshold == pytest.approx(0.5)
