# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monai_memo.search.matches import NOT_SCORED, Matches

MIDDLE = np.arctanh(0.85)  # of other patients


def counted(agreement: float, whole: float, lead: float) -> float:
    found = replace(Matches.empty(1, 1, 2, 3), similarity=np.array([[agreement]]))
    return float(found.with_further(np.array([[whole]]), np.array([[lead]]), float(MIDDLE)).similarity[0, 0])


def test_agreement_and_lead_add_up_where_both_are_above_the_middle() -> None:
    assert counted(0.93, NOT_SCORED, 0.93) > 0.94
    above = np.arctanh(0.93) - MIDDLE
    assert np.arctanh(counted(0.93, NOT_SCORED, 0.93)) == pytest.approx(MIDDLE + np.sqrt(2) * above)
    assert counted(0.93, 0.92, 0.9) == counted(0.92, 0.93, 0.9)  # agreement is the greater one of both kinds


@pytest.mark.parametrize("lead", [NOT_SCORED, 0.2, 0.85])
def test_one_of_both_counts_as_it_is_where_the_other_says_nothing(lead: float) -> None:
    assert counted(0.93, NOT_SCORED, lead) == pytest.approx(0.93)
    assert counted(0.3, NOT_SCORED, lead) == pytest.approx(max(0.3, lead))
    assert counted(NOT_SCORED, NOT_SCORED, NOT_SCORED) == NOT_SCORED


def test_more_of_anything_never_counts_for_less() -> None:
    values = [NOT_SCORED, 0.0, 0.5, 0.84, 0.86, 0.9, 0.99, 1 - 1e-7, 1.0]
    table = np.array([[counted(agreement, NOT_SCORED, lead) for lead in values] for agreement in values])
    assert (np.diff(table, axis=0) >= 0).all() and (np.diff(table, axis=1) >= 0).all()
    assert (table <= 1).all() and (table >= np.maximum.outer(values, values)).all()


def test_candidates_stand_in_the_order_of_what_counts() -> None:
    found = replace(
        Matches.empty(1, 2, 2, 3), candidates=np.array([[7, 8]]), similarity=np.array([[0.92, 0.91]])
    ).with_further(np.full((1, 2), NOT_SCORED), np.array([[0.5, 0.91]]), float(MIDDLE))
    assert found.candidates.tolist() == [[8, 7]] and found.lead.tolist() == [[0.91, 0.5]]
