# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Which pairs a report shows, and where: every copy, the nearest misses on both sides of tau, and some at random.

A pair has the number of its row in ``matches.csv``, from 1: it stands for the names, which no page shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monai_memo.audit.parts import Match

FOLDER = "pairs"
COPY, NEAR, RANDOM = "copy", "near", "random"
EACH_SIDE = 6  # of tau
AT_RANDOM = 8
PER_PAGE = 100  # further copies on a page of their own
ALIGNED = {2: 300, 3: 100}  # pairs that are aligned and have a page: a tenth of a second each, half a second of volumes
PICTURED = 2000  # pairs that are shown at all


@dataclass(frozen=True)
class ShownPairs:
    """The pairs of a report by their numbers.

    Attributes:
        groups: of each pair in the report: ``"copy"``, ``"near"`` (to tau), ``"random"``.
        further: copies on pages of their own, most similar first, a page in each part.
        aligned: pairs that are aligned and get a page.
        n_copies: copies there are.
    """

    groups: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    further: tuple[tuple[int, ...], ...] = ()
    aligned: frozenset[int] = frozenset()
    n_copies: int = 0

    @property
    def numbers(self) -> list[int]:
        """Every pair that is shown, in order."""
        return sorted({*self.groups, *(number for page in self.further for number in page)})

    @property
    def n_pictured(self) -> int:
        """Copies that are shown."""
        return sum(COPY in names for names in self.groups.values()) + sum(len(page) for page in self.further)

    def count(self, group: str) -> int:
        """Pairs of a group in the report."""
        return sum(group in names for names in self.groups.values())


def choose_pairs(matches: Sequence[Match], gallery: int, seed: int, dims: int) -> ShownPairs:
    """Choose the pairs of a report. The same seed chooses the same ones.

    Args:
        matches: of all synthetic images, most similar first.
        gallery: copies in the report itself; 0 for no pictures.
    """
    if gallery < 1:
        return ShownPairs(n_copies=sum(match.copy for match in matches))
    copies = [number for number, match in enumerate(matches, 1) if match.copy]
    others = [number for number, match in enumerate(matches, 1) if not match.copy and match.similarity > -1]
    below = sorted(others, key=lambda number: not matches[number - 1].near_many)
    near = [*copies[-min(EACH_SIDE, gallery) :], *below[: min(EACH_SIDE, gallery)]]
    every = [*copies, *others]
    rng = np.random.default_rng([seed, 23])
    drawn = rng.choice(len(every), min(AT_RANDOM, gallery, len(every)), replace=False)
    members = {
        COPY: {*copies[:gallery], *(number for number in near if matches[number - 1].copy)},
        NEAR: set(near),
        RANDOM: {every[int(place)] for place in drawn},
    }
    members[COPY] |= {number for number in members[RANDOM] if matches[number - 1].copy}
    inside = sorted(set().union(*members.values()))
    groups = {number: tuple(name for name in members if number in members[name]) for number in inside}
    rest = [number for number in copies if number not in groups][: max(0, PICTURED - len(inside))]
    further = tuple(tuple(rest[start : start + PER_PAGE]) for start in range(0, len(rest), PER_PAGE))
    return ShownPairs(groups, further, frozenset([*inside, *rest][: max(ALIGNED[dims], len(inside))]), len(copies))


def page_of(number: int) -> str:
    """Where the page of a pair lies, relative to the report: ``pairs/0001.html``."""
    return f"{FOLDER}/{number:04d}.html"


def page_of_copies(place: int) -> str:
    """Where the pages of further copies lie; the report itself is the first one."""
    return f"{FOLDER}/copies_{place + 2}.html"
