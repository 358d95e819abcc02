# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit and its raters say of each synthetic image, read from the audit's folder."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from monai_memo.audit.result import matches_in
from monai_memo.errors import ConfigurationError, MemoError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.prepare import FINAL, open_study
from monai_memo.label.ratings import all_ratings, standing_by_rater
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
    parts = _parts(audit.folder / "partial.csv")
    rows = []
    try:
        for row in matches_in(audit.folder):
            name, original = row["synthetic"], parts.get(row["synthetic"])
            rows.append(
                Row(
                    name, patient_of[row["nearest_training"]], float(row["similarity"]), row["copy"] == "true",
                    row["listed"] == "true", original is not None, None if original is None else patient_of[original],
                )
            )  # fmt: skip
    except KeyError as error:
        raise MemoError(
            f"{path} does not fit the training cohort or is not the table of an audit: {error} is missing. Audit again."
        ) from error
    except (TypeError, ValueError) as error:
        raise MemoError(f"{path} is not the table of an audit: {error}") from error
    return rows


def _parts(path: Path) -> dict[str, str]:
    """The training image of each copy in part."""
    if not path.is_file():
        return {}
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["in_part"] == "true"]
        return {uncell(row["synthetic"]): uncell(row["training"]) for row in rows}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise MemoError(f"{path} is not the table of an audit: {error}") from error


def ratings_of(audit: AuditFolder) -> dict[str, str]:
    """What raters say of the synthetic images of a review: see ``rules.choose``. Empty without a review.

    Raises:
        ConfigurationError: the review belongs to another audit; its ratings would be taken for those of this one.
    """
    if not (audit.review / "study.json").is_file():
        return {}
    study = open_study(audit)
    found: dict[str, str] = {}
    for pair_id, entries in all_ratings(audit.review / FINAL, study.by_id).items():
        given = [entry.rating for entry in standing_by_rater(entries).values()]
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
