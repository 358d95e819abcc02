# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from monai_memo.duplicates.grouping import EQUAL, NEAR, OTHER_ID, OTHER_SPLIT, Member, dropped, groups_of

MEMBERS = [
    Member("training", "a.png", "anna"),
    Member("training", "b.png", "bert"),
    Member("training", "c.png", "carl"),
    Member("heldout", "d.png", "dora"),
    Member("heldout", "e.png", "anna"),
    Member("synthetic", "f.png", "f.png", patients_known=False),
]


def test_pairs_that_hang_together_are_one_group_and_the_first_image_is_kept() -> None:
    groups = groups_of(MEMBERS, [[0, 2]], [(2, 3, 0.9), (0, 3, 0.8)])
    assert len(groups) == 1
    assert groups[0].members == (0, 2, 3) and groups[0].kind == NEAR
    assert groups[0].similarity == 0.9, "held together by the closer link"
    assert groups[0].cohorts == ("training", "heldout") and groups[0].patients == ("anna", "carl", "dora")
    assert dropped(MEMBERS, groups) == {2: NEAR, 3: NEAR, 4: OTHER_SPLIT}


def test_equal_pixels_alone_are_told_from_near_duplicates() -> None:
    groups = groups_of(MEMBERS, [[1, 2]], [(3, 5, 0.95)])
    assert [(group.members, group.kind) for group in groups] == [((1, 2), EQUAL), ((3, 5), NEAR)]
    assert groups[0].similarity == 1.0


def test_synthetic_images_have_no_patients_and_no_group_is_no_group() -> None:
    assert groups_of(MEMBERS, [], []) == []
    assert dropped([MEMBERS[0], Member("synthetic", "x", "anna")], []) == {}


def test_a_patient_shown_to_stand_under_two_ids_leaves_the_later_split_with_all_images() -> None:
    members = [*MEMBERS[:4], Member("heldout", "second.png", "dora"), Member("heldout", "e.png", "emil")]
    groups = groups_of(members, [], [(1, 3, 0.97)])  # bert of the training cohort and dora are one patient
    assert dropped(members, groups) == {3: NEAR, 4: OTHER_ID}
    both = [*members, Member("heldout", "bert.png", "bert")]
    assert dropped(both, groups) == {3: NEAR, 4: OTHER_ID, 6: OTHER_SPLIT}


def test_ids_that_hang_together_over_several_groups_are_one_patient() -> None:
    members = [*MEMBERS[:4], Member("heldout", "g.png", "gina"), Member("heldout", "h.png", "gina")]
    groups = groups_of(members, [], [(0, 3, 0.97)]) + groups_of(members, [], [(3, 4, 0.96)])
    assert dropped(members, groups)[5] == OTHER_ID


def test_one_patient_under_two_ids_within_a_split_keeps_the_other_images() -> None:
    members = [*MEMBERS[:3], Member("training", "more.png", "bert")]
    assert dropped(members, groups_of(members, [[0, 1]], [])) == {1: EQUAL}
