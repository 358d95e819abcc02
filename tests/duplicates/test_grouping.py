# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from monai_memo.duplicates.grouping import EQUAL, NEAR, OTHER_SPLIT, Member, dropped, groups_of

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
