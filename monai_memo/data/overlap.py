# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Patients or files that stand in two cohorts, and files that repeat within one."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from monai_memo.data.cohort import Cohort, CohortImage
from monai_memo.data.patients import identity
from monai_memo.errors import CohortOverlapError
from monai_memo.files import sha256_of_parts
from monai_memo.redaction import Named

SAMPLE = 4096  # bytes at the beginning, in the middle and at the end


def _size(image: CohortImage) -> int:
    if not image.path.exists():
        return -1
    return sum(item.stat().st_size for item in image.parts)


def _by_content(cohorts: Sequence[Cohort]) -> list[list[tuple[int, CohortImage]]]:
    """Group images with the same bytes, each with the number of its cohort.

    Only images of a size that occurs twice are read, and whole only where samples of them agree; with several cohorts,
    in two of them.
    """
    by_size: dict[int, list[tuple[int, CohortImage]]] = defaultdict(list)
    for number, cohort in enumerate(cohorts):
        for image in cohort.images:
            by_size[_size(image)].append((number, image))
    by_sample: dict[tuple[int, bytes], list[tuple[int, CohortImage]]] = defaultdict(list)
    for size, group in by_size.items():
        if size > 0 and _comparable(group, cohorts):
            for number, image in group:
                with suppress(OSError):  # no permission: skipped by name when it is loaded
                    by_sample[size, _sample(image.parts)].append((number, image))
    by_hash: dict[str, list[tuple[int, CohortImage]]] = defaultdict(list)
    for group in by_sample.values():
        if _comparable(group, cohorts):
            for number, image in group:
                with suppress(OSError):
                    by_hash[sha256_of_parts(image.parts)].append((number, image))
    return [group for group in by_hash.values() if len(group) > 1]


def _comparable(group: Sequence[tuple[int, CohortImage]], cohorts: Sequence[Cohort]) -> bool:
    """Whether there is somebody to compare with: in another cohort, if there are several."""
    return len(group) > 1 and (len(cohorts) == 1 or len({number for number, _ in group}) > 1)


def _sample(parts: Sequence[Path]) -> bytes:
    """Hash of some bytes of an image's files: whole files of one size are read only where these agree."""
    digest = hashlib.sha256()
    for path in parts:
        with open(path, "rb") as stream:
            digest.update(found := stream.read(3 * SAMPLE))
            if len(found) == 3 * SAMPLE:
                size = stream.seek(0, os.SEEK_END)
                for start in (size // 2, size - SAMPLE):
                    stream.seek(start)
                    digest.update(stream.read(SAMPLE))
    return digest.digest()


def repeated_images(cohort: Cohort) -> list[list[str]]:
    """Groups of byte-identical images within one cohort, by id."""
    return [[image.image_id for _, image in group] for group in _by_content([cohort])]


def _only_one(first: Cohort, second: Cohort) -> str:
    """One id in all images is what anonymisation leaves behind."""
    if set(first.patient_ids) != set(second.patient_ids) or first.n_patients > 1 or min(len(first), len(second)) < 2:
        return ""
    return (
        f", and all {len(first)} and {len(second)} images carry it (if it was put there to make them anonymous, give "
        "patients by --patient_pattern or a CSV with patient_id)"
    )


def _near_matches(first: Cohort, second: Cohort) -> list[Named]:
    """A warning about patients of two cohorts whose ids differ in writing only. Synthetic images have no patients."""
    if "synthetic" in (first.name, second.name):
        return []
    ones, others = set(first.patient_ids), set(second.patient_ids)
    written: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient in sorted(ones):
        written[identity(patient)].append(patient)
    pairs = [
        (written[identity(patient)][0], patient) for patient in sorted(others - ones) if identity(patient) in written
    ]
    if not pairs:
        return []
    text = (
        f"{len(pairs)} of {len(others)} patients of the {second.name} cohort may be in the {first.name} cohort as "
        "well, by ids that differ only in case, zeros, spaces or signs. If they are, copies of them are missed, so "
        "write the ids alike and run again"
    )
    return [Named(text, [f"{patient!r} and {other!r}" for patient, other in pairs], ".")]


def source_warnings(cohorts: Sequence[Cohort]) -> list[str]:
    """What a person has to see about where the cohorts were read from, without names of images or patients."""
    warnings = [f"{cohort.name}: {text}" for cohort in cohorts for text in cohort.warnings]
    real = [cohort for cohort in cohorts if cohort.name != "synthetic" and cohort.placeholder is not None]
    for word in dict.fromkeys(cohort.placeholder for cohort in real):
        who = " and ".join(
            f"{len(cohort)} {'held-out' if cohort.name == 'heldout' else cohort.name}"
            for cohort in real
            if cohort.placeholder == word
        )
        warnings.append(
            f"all {who} images carry the PatientID {word}: that is no patient. Give patients by --patient_pattern or a "
            "CSV with patient_id."
        )
    return warnings


def check_overlap(cohorts: Sequence[Cohort], allow: bool = False) -> list[str]:
    """Refuse cohorts that share patients or byte-identical images.

    Patients are compared only where both cohorts know them: file names are no patients.

    Args:
        cohorts: at least two.
        allow: return the findings as warnings instead.

    Returns:
        Warnings for the report, with the names apart (``Named``); empty if there is no overlap.

    Raises:
        CohortOverlapError: there is an overlap and ``allow`` is False; names are listed.
    """
    findings: list[Named] = []
    suspicions: list[Named] = []
    for first, second in combinations(cohorts, 2):
        if first.patients_known and second.patients_known:
            shared = sorted(set(first.patient_ids) & set(second.patient_ids))
            if shared:
                plural = "s" if len(shared) > 1 else ""
                both = f"in both the {first.name} and the {second.name} cohort{_only_one(first, second)}"
                findings.append(Named(f"{len(shared)} patient{plural} {both}", shared, "."))
            suspicions += _near_matches(first, second)
    identical: dict[tuple[int, int], list[str]] = defaultdict(list)
    for group in _by_content(cohorts):
        present: dict[int, list[str]] = defaultdict(list)
        for number, image in group:
            present[number].append(image.image_id)
        for earlier, later in combinations(sorted(present), 2):
            # Each image of the later cohort counts, with one example from the earlier one.
            identical[earlier, later] += [f"{present[earlier][0]} = {image_id}" for image_id in present[later]]
    for (earlier, later), pairs in sorted(identical.items()):
        one, other = cohorts[earlier].name, cohorts[later].name
        plural = "s" if len(pairs) > 1 else ""
        text = f"{len(pairs)} byte-identical image{plural} in both the {one} and the {other} cohort"
        rest = "."
        if "synthetic" in (one, other):
            rest += " Either the folders were mixed up, or the generator wrote a real image out verbatim."
        findings.append(Named(text, sorted(pairs), rest))
    if findings and not allow:
        remedy = "Remove them from one cohort, or go on with --allow-overlap: the report then carries a warning."
        raise CohortOverlapError(
            f"the cohorts overlap. {' '.join(findings)} {remedy}",
            f"the cohorts overlap. {' '.join(text.plain for text in findings)} {remedy}",
        )
    return [*findings, *suspicions]
