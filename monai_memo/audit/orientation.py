# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Before anything is looked up: do the cohorts have the same orientation? Copies in another one are missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monai_memo.data.near_twins import near_twins
from monai_memo.data.orientation import AS_IS, orientation, searched
from monai_memo.data.orientation_check import OrientationFinding, compare_orientation, title_of
from monai_memo.data.prepared import PreparedCohort
from monai_memo.data.stored import UNKNOWN_NOTE
from monai_memo.errors import CohortError
from monai_memo.redaction import Named, listed

RUN = "Run the audit with the orientation put right: it says how many copies there are."
LOOKED_UP = "matches.csv says which count as copies."


def compare_cohorts(
    prepared: Mapping[str, PreparedCohort], seed: int, applied: str | None = None
) -> list[OrientationFinding]:
    """Every other cohort against the training cohort.

    Args:
        prepared: ``"training"`` and others.
        seed: of the samples that are looked at.
        applied: orientation that the synthetic images were turned by.
    """
    turned = {"synthetic": None if applied == AS_IS else applied}
    return [
        compare_orientation(prepared["training"], cohort, seed, turned.get(name))
        for name, cohort in prepared.items()
        if name != "training"
    ]


def partly_stated(prepared: Mapping[str, PreparedCohort]) -> list[str]:
    """Warnings of cohorts of which some volumes state their orientation and others do not: half may lie otherwise."""
    warnings = []
    for name, cohort in prepared.items():
        counted = [note.split(" image", 1)[0] for note in cohort.notes if note.endswith(f" {UNKNOWN_NOTE}")]
        number, total = sum(map(int, counted)), len(cohort.pixels)
        if 0 < number < total:
            warnings.append(
                f"{number} of the {total} {title_of(name)} volumes do not state their orientation and were taken as "
                "right, front, up (RAS); the others state it. If they lie otherwise, copies are missed: look at both "
                "kinds (monai-memo inspect), and write the orientation into the files."
            )
    return warnings


def require_alike(
    findings: Sequence[OrientationFinding], asked: str | None = None, symmetries: str = "none", dims: int = 2
) -> list[str]:
    """Refuse cohorts of another orientation; warn of what is mixed or cannot be told, and of near twins.

    Args:
        findings: of ``compare_cohorts``.
        asked: the option ``orientation``; ``"as_is"`` turns the refusal into a warning.
        symmetries: under which images are looked up.
        dims: 2 or 3.

    Returns:
        Warnings, with the names of the images apart (``Named``).

    Raises:
        CohortError: a cohort has another orientation; with the evidence and what to do.
    """
    wrong = [finding for finding in findings if finding.status == "otherwise"]
    if wrong and asked != AS_IS:
        text = " ".join(f"{finding.sentence} {finding.remedy}" for finding in wrong)
        if len(wrong) > 1 and len({finding.best for finding in wrong}) == 1:
            text += " Both fit better in the same way: perhaps it is the training files that are to be mended."
        told = [found for finding in wrong if (found := near_twins(finding, RUN)) is not None]
        raise CohortError(" ".join([text, *told]), " ".join([text, *(found.plain for found in told)]))
    warnings: list[str] = []
    for finding in findings:
        copies = near_twins(finding, LOOKED_UP)
        warnings += [] if copies is None else [copies]
        if finding.status == "same":
            continue
        if _covered(finding, symmetries, dims):
            action = finding.remedy if symmetries == "none" else "Every image was looked up turned as well."
            if finding.status == "otherwise" and symmetries == "none":
                action = "They were taken as they are: left-right mirror images are looked for in any case."
        elif finding.status == "otherwise":
            action = "They were taken as they are, as --orientation as_is says: copies stored so are missed."
        else:
            action = finding.remedy
        names, text = finding.turned_names(), f"{finding.sentence} {action}"
        warnings.append(Named(text, names, whole=f"{text} ({listed(names)})" if names else None))
    return warnings


def _covered(finding: OrientationFinding, symmetries: str, dims: int) -> bool:
    """Whether every image was looked up under all orientations that images have; mirror images always are."""
    if not finding.turned:
        return False
    turns = (orientation(name, dims) for name in finding.turned)
    looked_up = searched(symmetries, dims)
    return all(turn in looked_up or turn.is_left_right for turn in turns)


def not_looked_up(findings: Sequence[OrientationFinding], symmetries: str, dims: int) -> list[str]:
    """Why a verdict that found nothing would say little: images of another orientation, not looked up turned."""
    return [
        f"{finding.sentence} Copies among them are missed."
        for finding in findings
        if finding.status in ("otherwise", "mixed") and not _covered(finding, symmetries, dims)
    ]
