# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The switch ``privacy_epsilon`` of the generator bundles: DP-SGD of the diffusion model."""

from __future__ import annotations

from collections import Counter

from monai_memo.data.cohort import Cohort


def most_of_a_patient(cohort: Cohort) -> int | None:
    """Images of the patient with the most; None where patients are not known."""
    if not cohort.patients_known:
        return None
    return max(Counter(image.patient_id for image in cohort.images).values())
