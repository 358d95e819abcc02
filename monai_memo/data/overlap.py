# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Patients or files that stand in two cohorts, and files that repeat within one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.errors import CohortOverlapError
from monai_memo.files import sha256_of


def _size(image: CohortImage) -> int:
    if image.path.is_dir():
        return sum(item.stat().st_size for item in image.path.iterdir() if item.is_file())
    return image.path.stat().st_size if image.path.exists() else -1


def _by_content(cohorts: Sequence[Cohort]) -> dict[str, list[tuple[str, CohortImage]]]:
    """Group images with the same bytes. Only images of the same size are read."""
    by_size: dict[int, list[tuple[str, CohortImage]]] = defaultdict(list)
    for cohort in cohorts:
        for image in cohort.images:
            by_size[_size(image)].append((cohort.name, image))
    by_hash: dict[str, list[tuple[str, CohortImage]]] = defaultdict(list)
    for size, group in by_size.items():
        if size > 0 and len(group) > 1:
            for name, image in group:
                by_hash[sha256_of(image.path)].append((name, image))
    return {digest: group for digest, group in by_hash.items() if len(group) > 1}


def repeated_images(cohort: Cohort) -> list[list[str]]:
    """Groups of byte-identical images within one cohort, by id."""
    return [[image.image_id for _, image in group] for group in _by_content([cohort]).values()]


def _names(items: Sequence[str], most: int = 10) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def check_overlap(cohorts: Sequence[Cohort], allow: bool = False) -> list[str]:
    """Refuse cohorts that share patients or byte-identical images.

    Patients are compared only where both cohorts know them: file names are no patients.

    Args:
        cohorts: at least two.
        allow: return the findings as warnings instead.

    Returns:
        Warnings for the report, empty if there is no overlap.

    Raises:
        CohortOverlapError: there is an overlap and ``allow`` is False; names are listed.
    """
    findings = []
    for first, second in combinations(cohorts, 2):
        if first.patients_known and second.patients_known:
            shared = sorted(set(first.patient_ids) & set(second.patient_ids))
            if shared:
                findings.append(
                    f"{len(shared)} patient{'s' if len(shared) > 1 else ''} in both the {first.name} and the "
                    f"{second.name} cohort: {_names(shared)}."
                )
    identical: dict[tuple[str, str], list[str]] = defaultdict(list)
    for group in _by_content(cohorts).values():
        present = {name: image.image_id for name, image in reversed(group)}
        ordered = [cohort.name for cohort in cohorts if cohort.name in present]
        for one, other in combinations(ordered, 2):
            identical[one, other].append(f"{present[one]} = {present[other]}")
    for (one, other), pairs in identical.items():
        plural = "s" if len(pairs) > 1 else ""
        text = f"{len(pairs)} byte-identical image{plural} in both the {one} and the {other} cohort: "
        text += _names(sorted(pairs)) + "."
        if "synthetic" in (one, other):
            text += " Either the folders were mixed up, or the generator wrote a real image out verbatim."
        findings.append(text)
    if findings and not allow:
        raise CohortOverlapError(
            "the cohorts overlap. " + " ".join(findings) + " Remove them from one cohort, "
            "or go on with --allow-overlap: the report then carries a warning."
        )
    return findings
