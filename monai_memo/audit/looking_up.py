# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The steps that an audit and the looks of a release share: from prepared cohorts to calls."""

from __future__ import annotations

from monai_memo.audit.certainty import Calibrated, calibrate
from monai_memo.audit.in_part import InPart, copies_in_part
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.run import Run
from monai_memo.audit.searching import Searched, match_cohorts, search_copies
from monai_memo.detector.detector import Detector


def look_up(run: Run, inputs: Inputs, detector: Detector) -> tuple[Searched, Calibrated, InPart | None]:
    """Match sharpness, search, calibrate, and look for copies in part."""
    with run.timed("match sharpness"):
        matched = match_cohorts(run, inputs)
    searched = search_copies(run, inputs, detector, matched)
    with run.timed("calibrate"):
        calibrated = calibrate(run.settings, inputs, searched)
    return searched, calibrated, copies_in_part(run, inputs, searched, calibrated)
