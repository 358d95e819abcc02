# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The detector: how it is trained, what its file holds, and how it embeds a cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.detector.detector import Detector as Detector
    from monai_memo.detector.fine_tuning import FineTuningOptions as FineTuningOptions
    from monai_memo.detector.fine_tuning import PartnerDataset as PartnerDataset
    from monai_memo.detector.fine_tuning import fine_tune as fine_tune
    from monai_memo.detector.loop import ContrastiveEvaluator as ContrastiveEvaluator
    from monai_memo.detector.loop import ContrastiveTrainer as ContrastiveTrainer
    from monai_memo.detector.loop import Learner as Learner
    from monai_memo.detector.loop import TrainingPlan as TrainingPlan
    from monai_memo.detector.loop import contrastive_trainer as contrastive_trainer
    from monai_memo.detector.pairs import ViewPairs as ViewPairs
    from monai_memo.detector.recipe import Recipe as Recipe
    from monai_memo.detector.training import TrainingOptions as TrainingOptions
    from monai_memo.detector.training import split_validation as split_validation
    from monai_memo.detector.training import train_detector as train_detector

_MODULES = {
    "ContrastiveEvaluator": "monai_memo.detector.loop",
    "ContrastiveTrainer": "monai_memo.detector.loop",
    "Detector": "monai_memo.detector.detector",
    "FineTuningOptions": "monai_memo.detector.fine_tuning",
    "Learner": "monai_memo.detector.loop",
    "PartnerDataset": "monai_memo.detector.fine_tuning",
    "Recipe": "monai_memo.detector.recipe",
    "TrainingOptions": "monai_memo.detector.training",
    "TrainingPlan": "monai_memo.detector.loop",
    "ViewPairs": "monai_memo.detector.pairs",
    "contrastive_trainer": "monai_memo.detector.loop",
    "fine_tune": "monai_memo.detector.fine_tuning",
    "split_validation": "monai_memo.detector.training",
    "train_detector": "monai_memo.detector.training",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
