# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cells of a cohort's further columns: what they say, and which of them say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # settings of commands read this file, and have to be quick
    from monai_memo.data.cohort import Cohort

SERIES = "SeriesInstanceUID"  # which image of a folder of several DICOM series is meant
OF_SAMPLES = ("image", "patient_id", "seed", "model_sha256", "sha256", SERIES)  # columns that are no conditions
MISSING = ""
NOT_GIVEN = ("", "nan", "na", "n/a", "null")  # in any case; JSON's null comes as None


def given(text: object) -> str:
    """A cell as it was written, or ``""`` for one that says nothing.

    Example:
        >>> given(" normal "), given("NaN"), given(None), given("none")
        ('normal', '', '', 'none')
    """
    word = "" if text is None else str(text).strip()
    return MISSING if word.lower() in NOT_GIVEN or word == "None" else word


def cells_of(cohort: Cohort, column: str) -> list[str] | None:
    """A column of a cohort, one cell for each image; None where its table has no such column."""
    if not any(column in image.columns for image in cohort.images):
        return None
    return [given(image.columns.get(column)) for image in cohort.images]
