# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What an audit would find if there were copies: the positive control and the limit of detection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.certainty import Calibrated
from monai_memo.audit.detection_limit import detection_limit
from monai_memo.audit.in_part import InPart
from monai_memo.audit.inputs import Inputs
from monai_memo.audit.parts import DetectionLimit, Sensitivity
from monai_memo.audit.run import Run
from monai_memo.audit.searching import Searched
from monai_memo.audit.self_check import positive_control
from monai_memo.data.planted_files import ReadBack, through_files

TOGETHER = 2**27  # bytes of planted copies that are looked up together


@dataclass(frozen=True)
class Controls:
    """What copies that were planted on purpose say.

    Attributes:
        sensitivity: how many of them are found; None where none were planted.
        detection_limit: from which strength of each change on they are missed; None where it was not measured.
    """

    sensitivity: Sensitivity | None
    detection_limit: DetectionLimit | None


def plant_copies(
    run: Run, inputs: Inputs, searched: Searched, calibrated: Calibrated, in_part: InPart | None = None
) -> Controls:
    """Plant copies of training images and look them up, as soft as the synthetic images are.

    For the limit of detection they count as found as a whole or in part.
    """
    settings, tau = run.settings, calibrated.rates.tau.value
    preprocessing = searched.detector.preprocessing

    def similarity_of(images: NDArray[np.floating]) -> NDArray[np.float64]:
        return searched.similarity_of(searched.matched.soften(images))

    def called(images: NDArray[np.floating]) -> NDArray[np.bool_]:
        soft = searched.matched.soften(images)
        found = searched.similarity_of(soft) > tau
        if in_part is not None and not found.all():
            found[~found] = in_part.contain(soft[~found])
        return found

    def through(copies: NDArray[np.float32]) -> ReadBack:
        like, folder = inputs.prepared["synthetic"].cohort, run.work / "planted"
        return through_files(copies, like, preprocessing, folder, settings.seed)

    with run.timed("positive control", settings.planted > 0):
        sensitivity = positive_control(
            similarity_of, inputs.training.pixels, tau, settings.planted, settings.seed, settings.confidence, through
        )
    with run.timed("limit of detection", settings.limit_copies > 0):
        limit = detection_limit(
            called, inputs.training.cohort, preprocessing, settings.limit_copies, settings.seed, TOGETHER,
            inputs.prepared["heldout"].cohort,
        )  # fmt: skip
    return Controls(sensitivity, limit)
