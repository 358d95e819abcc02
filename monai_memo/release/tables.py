# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit and its raters say of each synthetic image, read from the audit's folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_memo.audit.result import AuditResult, matches_in, truth
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.prepare import FINAL, STUDY, open_study
from monai_memo.label.ratings import all_ratings, settled, standing_by_rater
from monai_memo.label.study import Study
from monai_memo.release.rules import Row
from monai_memo.text import uncell

PATIENTS_RATINGS = ("copy", "same_patient")  # what a rater says who sees a training patient


def rows_of(audit: AuditFolder, patient_of: Mapping[str, str]) -> list[Row]:
    """One row for each synthetic image, most similar first.

    Args:
        audit: a finished, unredacted audit.
        patient_of: of each training image.

    Raises:
        MemoError: a table that is none of this audit, or that names training images that are not there.
    """
    path = audit.folder / "matches.csv"
    parts = _parts(audit.folder / "partial.csv", audit.result.partial is not None)
    rows = []
    try:
        for row in matches_in(audit.folder):
            name, original = row["synthetic"], parts.get(row["synthetic"])
            rows.append(
                Row(
                    name, patient_of[row["nearest_training"]], float(row["similarity"]), row["copy"] == "true",
                    row["listed"] == "true", original is not None, None if original is None else patient_of[original],
                    float(row["as_found"]) if row.get("as_found") else None,
                )
            )  # fmt: skip
    except KeyError as error:
        raise MemoError(
            f"{path} does not fit the training cohort or is not the table of an audit: {error} is missing. Audit again."
        ) from error
    except (TypeError, ValueError) as error:
        raise MemoError(f"{path} is not the table of an audit: {error}") from error
    return rows


def _parts(path: Path, expected: bool) -> dict[str, str]:
    """The training image of each copy in part."""
    if not expected:
        return {}
    if not path.is_file():
        raise ConfigurationError(
            f"{path.parent} has no {path.name}, in which the audit named copies in part: without it they would be "
            "released. Put it back, or audit again."
        )
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if truth(row["in_part"]) == "true"]
        return {uncell(row["synthetic"]): uncell(row["training"]) for row in rows}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise MemoError(f"{path} is not the table of an audit: {error}") from error


def require_unchanged(result: AuditResult, rows: Sequence[Row], called: Mapping[str, bool], folder: Path) -> None:
    """The tables say what the record says and what a look at the images says again.

    A table that was edited, or saved by a program that writes other words or numbers, would let copies out.

    Args:
        called: each synthetic image, and whether it is above the threshold when it is looked up again; without those
            that are so close to the threshold that another device can decide otherwise.

    Raises:
        ConfigurationError: with counts.
    """
    found = {
        "copies": (sum(row.copy for row in rows), result.n_copies.value),
        "listed images": (
            sum(row.listed for row in rows), 0 if result.discoveries is None else result.discoveries["listed"]
        ),
        "copies in part": (
            sum(row.in_part for row in rows), 0 if result.partial is None else result.partial["n_copies"].value
        ),
    }  # fmt: skip
    for name, (tables, record) in found.items():
        if tables != record:
            raise ConfigurationError(
                f"the tables in {folder} name {tables} {name} and the audit's record has {record}: matches.csv or "
                "partial.csv was changed or is missing. Audit again."
            )
    other = sum(row.copy != called.get(row.name, row.copy) for row in rows)
    if other:
        raise ConfigurationError(
            f"{folder / 'matches.csv'} and a look at the images disagree on whether {other} of them are copies: the "
            "table was changed, or made by another version. Audit again."
        )


def ratings_of(audit: AuditFolder) -> dict[str, str]:
    """What raters say of the synthetic images of a review: see ``rules.choose``. Empty without a review.

    What a rater called a copy in an earlier review of this audit, which was set aside since, holds back as well.

    Raises:
        ConfigurationError: the review belongs to another audit, so that its ratings would be taken for those of this
            one; or nothing says of which images the ratings are.
    """
    found: dict[str, str] = {}
    for place in sorted(audit.folder.glob("review.old*")):
        _require_plan(place)
        if (place / STUDY).is_file():
            study = Study.load(place / STUDY)
            if study.audit == audit.identity:
                found |= {name: said for name, said in _said(place, study).items() if said == "copy"}
    _require_plan(audit.review)
    if (audit.review / STUDY).is_file():
        said = _said(audit.review, open_study(audit))
        found = {**said, **found}
    return found


def _require_plan(review: Path) -> None:
    """Ratings without the plan of the review would be passed over in silence."""
    if not (review / STUDY).is_file() and any((review / FINAL).glob("*.json")):
        raise ConfigurationError(
            f"{review} holds ratings and no {STUDY}, which says of which images they are: what raters called copies "
            "would be released. Put it back, or move the folder away."
        )


def _said(review: Path, study: Study) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair_id, entries in all_ratings(review / FINAL, study.by_id).items():
        given = [entry.rating for entry in standing_by_rater(entries).values()]
        last = settled(entries)  # can only add to what raters say: one "copy" is enough to hold an image back
        given += [last.rating] if last is not None else []
        decided = [rating for rating in given if rating != "unsure"]
        name = study.by_id[pair_id].synthetic
        if any(rating in PATIENTS_RATINGS for rating in decided):
            found[name] = "copy"
        elif decided:
            found[name] = "novel"
    return found


def require_complete(audit: AuditFolder, names: set[str]) -> None:
    """The table has a row for each image that was audited, and no other.

    Raises:
        ConfigurationError: with counts.
    """
    listed = {row["synthetic"] for row in matches_in(audit.folder)}
    if listed != names:
        raise ConfigurationError(
            f"{audit.folder / 'matches.csv'} has rows of {len(listed - names)} images that were not read and none of "
            f"{len(names - listed)} that were: it is not the table of this audit. Audit again."
        )
