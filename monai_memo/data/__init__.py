# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts, one preprocessing for all of them, and phantoms and planted copies to try things on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.data.cohort import Cohort as Cohort
    from monai_memo.data.cohort import CohortImage as CohortImage
    from monai_memo.data.cohort import Reading as Reading
    from monai_memo.data.cohort import SkippedImage as SkippedImage
    from monai_memo.data.cohort import split_by_patient as split_by_patient
    from monai_memo.data.demo_cohorts import write_demo_cohorts as write_demo_cohorts
    from monai_memo.data.loading import Preprocessing as Preprocessing
    from monai_memo.data.loading import guess_preprocessing as guess_preprocessing
    from monai_memo.data.phantoms import chest_phantom as chest_phantom
    from monai_memo.data.phantoms import coronary_phantom as coronary_phantom
    from monai_memo.data.phantoms import knee_phantom as knee_phantom
    from monai_memo.data.phantoms import pet_phantom as pet_phantom
    from monai_memo.data.phantoms import pet_volume_phantom as pet_volume_phantom
    from monai_memo.data.phantoms import skin_phantom as skin_phantom
    from monai_memo.data.phantoms import ultrasound_phantom as ultrasound_phantom
    from monai_memo.data.planting import plant as plant
    from monai_memo.data.prepared import PreparedCohort as PreparedCohort
    from monai_memo.data.prepared import prepare as prepare
    from monai_memo.data.reading import Pixels as Pixels
    from monai_memo.data.reading import read_image as read_image
    from monai_memo.data.reading import spatial_dims_of as spatial_dims_of
    from monai_memo.data.writing import save_image as save_image
    from monai_memo.data.writing import write_cohort as write_cohort

_MODULES = {
    "Cohort": "monai_memo.data.cohort",
    "CohortImage": "monai_memo.data.cohort",
    "Pixels": "monai_memo.data.reading",
    "PreparedCohort": "monai_memo.data.prepared",
    "Preprocessing": "monai_memo.data.loading",
    "Reading": "monai_memo.data.cohort",
    "SkippedImage": "monai_memo.data.cohort",
    "chest_phantom": "monai_memo.data.phantoms",
    "coronary_phantom": "monai_memo.data.phantoms",
    "guess_preprocessing": "monai_memo.data.loading",
    "knee_phantom": "monai_memo.data.phantoms",
    "pet_phantom": "monai_memo.data.phantoms",
    "pet_volume_phantom": "monai_memo.data.phantoms",
    "plant": "monai_memo.data.planting",
    "prepare": "monai_memo.data.prepared",
    "read_image": "monai_memo.data.reading",
    "save_image": "monai_memo.data.writing",
    "skin_phantom": "monai_memo.data.phantoms",
    "spatial_dims_of": "monai_memo.data.reading",
    "split_by_patient": "monai_memo.data.cohort",
    "ultrasound_phantom": "monai_memo.data.phantoms",
    "write_cohort": "monai_memo.data.writing",
    "write_demo_cohorts": "monai_memo.data.demo_cohorts",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
