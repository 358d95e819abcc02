# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What is removed, and why: from the tables of an audit and from what raters say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

COPY, LISTED, BELOW, PART = "above the threshold", "on the list", "above the lowered threshold", "copy in part"
RATED, NEIGHBOUR, SECOND = "called a copy by a rater", "near a copied patient", "called a copy by the second detector"
SECOND_NEAR, UNUSABLE = "near a copied patient, by the second look", "could not be read or written"
UNREADABLE = "not readable, so not audited"


@dataclass(frozen=True)
class Row:
    """A synthetic image in the tables of an audit.

    Attributes:
        name: of the synthetic image.
        patient: whom its nearest training image shows.
        similarity: to it.
        copy: above tau.
        listed: on the list at the false discovery rate.
        in_part: above the threshold for copies in part.
        part_patient: whom its region shows; None unless ``in_part``.
        as_found: similarity before patients who are near to many samples counted for less; None where they do not.
    """

    name: str
    patient: str
    similarity: float
    copy: bool
    listed: bool
    in_part: bool = False
    part_patient: str | None = None
    as_found: float | None = None

    def above(self, threshold: float) -> bool:
        """Whether it can be a copy by a threshold, as planted copies are counted: by what the search found."""
        return max(self.similarity, -1 if self.as_found is None else self.as_found) > threshold


@dataclass(frozen=True)
class Rule:
    """How to choose.

    Attributes:
        name: ``"tau"``, ``"list"`` or ``"bound"``.
        threshold: that the similarity may not exceed, for ``"bound"``.
        parts, neighbourhoods, keep_novel: see ``ReleaseSettings``.
    """

    name: str = "tau"
    threshold: float | None = None
    parts: bool = True
    neighbourhoods: bool = False
    keep_novel: bool = False


@dataclass(frozen=True)
class Choice:
    """What goes and what stays.

    Attributes:
        removed: first reason of each image that goes.
        kept: the others, in the order of the rows.
        spared: images that the rule would remove and that stay, because raters call them novel.
        patients: those who were copied; with each the number of removed images that show them, most first.
    """

    removed: Mapping[str, str]
    kept: Sequence[str]
    spared: Sequence[str] = ()
    patients: Mapping[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, int]:
        """How many go for each reason, most frequent first."""
        return dict(Counter(self.removed.values()).most_common())


def choose(rows: Sequence[Row], rule: Rule, ratings: Mapping[str, str] | None = None) -> Choice:
    """Apply a rule.

    Args:
        rows: one for each synthetic image.
        ratings: of some images, what raters say: ``"copy"`` where any of them calls it a copy or the same patient,
            ``"novel"`` where all who decided call it novel.
    """
    ratings = ratings or {}
    removed: dict[str, str] = {}
    spared: list[str] = []
    copied: Counter[str] = Counter()
    for row in rows:
        reason, patients = _reason(row, rule), []
        if row.copy or reason in (COPY, LISTED):
            patients.append(row.patient)
        if reason == PART and row.part_patient is not None:
            patients.append(row.part_patient)
        if ratings.get(row.name) == "copy":
            reason = reason or RATED
            patients = patients or [row.patient]
        elif ratings.get(row.name) == "novel" and rule.keep_novel and reason is not None:
            spared.append(row.name)
            reason, patients = None, []
        if reason is not None:
            removed[row.name] = reason
            copied.update(patients)
    if rule.neighbourhoods:
        for row in rows:
            near = row.patient in copied or row.part_patient in copied
            if near and row.name not in removed and row.name not in spared:
                removed[row.name] = NEIGHBOUR
    kept = [row.name for row in rows if row.name not in removed]
    return Choice(removed, kept, spared, dict(copied.most_common()))


def _reason(row: Row, rule: Rule) -> str | None:
    if rule.name == "list":
        if row.listed:
            return LISTED
    elif row.copy:
        return COPY
    elif rule.threshold is not None and row.above(rule.threshold):
        return BELOW
    return PART if rule.parts and row.in_part else None
