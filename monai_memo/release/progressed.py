# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How far a release is."""

from __future__ import annotations

from dataclasses import dataclass, field

from monai_memo.data.cohort import SkippedImage
from monai_memo.release.looks import Look
from monai_memo.release.rules import Choice, Row
from monai_memo.release.topping import Drawn


@dataclass
class Progressed:
    """What is known so far.

    Attributes:
        choice: by the rule.
        kept: images that are still to be released, by name.
        rows: of the images that were looked at: audited ones and those drawn that entered.
        looks: of the second detector: before and after its own calls were removed.
        seconds: called a copy by the second detector and removed, with the patient.
        neighbours: removed because they are near a patient whom the second detector or the rule found copied.
        skipped: images that cannot be released, and why.
        drawn: further images of the generator; None where none were asked for.
    """

    choice: Choice
    kept: list[str]
    rows: list[Row] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    seconds: dict[str, str] = field(default_factory=dict)
    neighbours: dict[str, str] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)
    drawn: Drawn | None = None
