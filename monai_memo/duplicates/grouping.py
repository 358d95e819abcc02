# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From pairs to groups, and from groups to what is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

EQUAL, NEAR = "equal pixels", "nearly equal"
OTHER_SPLIT = "patient stands in an earlier cohort"
OTHER_ID = "patient stands in an earlier cohort under another id"


@dataclass(frozen=True)
class Member:
    """An image.

    Attributes:
        cohort: ``"training"``, ``"heldout"`` or ``"synthetic"``.
        image_id, patient_id: of it.
        patients_known: False where each image counts as a patient of its own.
    """

    cohort: str
    image_id: str
    patient_id: str
    patients_known: bool = True


@dataclass(frozen=True)
class Group:
    """Images that are the same, or nearly.

    Attributes:
        members: positions, the one that is kept first.
        kind: ``EQUAL`` where all have the same pixels, else ``NEAR``.
        similarity: the lowest of a link that holds the group together; 1 for equal pixels.
        cohorts: that it spans.
        patients: known ones that it spans.
    """

    members: tuple[int, ...]
    kind: str
    similarity: float
    cohorts: tuple[str, ...]
    patients: tuple[str, ...]


def groups_of(
    members: Sequence[Member], equal: Sequence[Sequence[int]], near: Sequence[tuple[int, int, float]]
) -> list[Group]:
    """Join what hangs together, largest groups first.

    Args:
        members: in the order in which images are kept.
        equal: positions of images with equal pixels.
        near: pairs of positions with their similarity.
    """
    parent = list(range(len(members)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    lowest: dict[int, float] = defaultdict(lambda: 1.0)
    links = [(one[0], other, 1.0) for one in equal for other in one[1:]] + list(near)
    # The most similar first: what a group already holds together by a closer link does not lower its similarity.
    for one, other, similarity in sorted(links, key=lambda link: -link[2]):
        first, second = sorted((root(one), root(other)))
        if first != second:
            parent[second] = first
            lowest[first] = min(lowest[first], lowest[second], similarity)
    found: dict[int, list[int]] = defaultdict(list)
    for place in range(len(members)):
        found[root(place)].append(place)
    same = {place: number for number, one in enumerate(equal) for place in one}
    groups = []
    for first, places in found.items():
        if len(places) < 2:
            continue
        all_equal = len({same.get(place, -1 - place) for place in places}) == 1
        cohorts = tuple(dict.fromkeys(members[place].cohort for place in places))
        patients = tuple(dict.fromkeys(members[p].patient_id for p in places if members[p].patients_known))
        groups.append(Group(tuple(places), EQUAL if all_equal else NEAR, lowest[first], cohorts, patients))
    return sorted(groups, key=lambda group: (-len(group.members), -group.similarity, group.members))


def dropped(members: Sequence[Member], groups: Sequence[Group]) -> dict[int, str]:
    """Which images a cleaned table leaves out, and why: all but the first of a group, and patients of an earlier split.

    A group that holds images of two ids shows that these are one patient: whoever stands in an earlier split under one
    of them is left out under the other as well, with all images. Synthetic images have no patients.
    """
    found = {place: group.kind for group in groups for place in group.members[1:]}
    name = one_name(groups)
    first: dict[str, str] = {}  # the cohort in which a patient stands first, under any id
    under_id: dict[str, str] = {}  # and under this one
    for place, member in enumerate(members):
        if member.cohort == "synthetic" or not member.patients_known:
            continue
        cohort = first.setdefault(name(member.patient_id), member.cohort)
        by_id = under_id.setdefault(member.patient_id, member.cohort)
        if cohort != member.cohort:
            found.setdefault(place, OTHER_ID if by_id == member.cohort else OTHER_SPLIT)
    return found


def one_name(groups: Sequence[Group]) -> Callable[[str], str]:
    """One id for all ids that groups show to be one patient: the first."""
    other: dict[str, str] = {}

    def root(patient: str) -> str:
        while patient in other:
            patient = other[patient]
        return patient

    for group in groups:
        for patient in group.patients[1:]:
            one, two = root(group.patients[0]), root(patient)
            if one != two:
                other[two] = one
    return root
