# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Does a medical image generator leak its training patients?

The public names are loaded when they are used, so that ``import monai_memo`` is quick.

Example:
    >>> from monai_memo import Audit
    >>> result = Audit(train="train", heldout="heldout", synthetic="synthetic", out="out").run()  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.audit.audit import Audit as Audit
    from monai_memo.audit.in_memory import audit_images as audit_images
    from monai_memo.audit.result import AuditResult as AuditResult
    from monai_memo.benchmark.evaluate import Evaluation as Evaluation
    from monai_memo.data.cohort import Cohort as Cohort
    from monai_memo.data.cohort import split_by_patient as split_by_patient
    from monai_memo.data.loading import Preprocessing as Preprocessing
    from monai_memo.detector.detector import Detector as Detector
    from monai_memo.detector.recipe import Recipe as Recipe
    from monai_memo.detector.training import train_detector as train_detector
    from monai_memo.errors import MemoError as MemoError
    from monai_memo.generators.anything import load_generator as load_generator
    from monai_memo.generators.folder import FolderGenerator as FolderGenerator
    from monai_memo.generators.latent_diffusion import LatentDiffusion as LatentDiffusion
    from monai_memo.generators.sampler import Sampler as Sampler
    from monai_memo.handlers.copy_rate_limit import BestUnderCopyRate as BestUnderCopyRate
    from monai_memo.handlers.copy_rate_limit import StopAtCopyRate as StopAtCopyRate
    from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor as CopyRateMonitor
    from monai_memo.metrics.copy_rate import CopyRate as CopyRate
    from monai_memo.metrics.verified import VerifiedCopyRate as VerifiedCopyRate
    from monai_memo.networks.copy_detector import CopyDetector as CopyDetector
    from monai_memo.sampling import Generator as Generator
    from monai_memo.search.copy_search import CopySearch as CopySearch
    from monai_memo.search.embedding_index import EmbeddingIndex as EmbeddingIndex
    from monai_memo.search.gallery import Gallery as Gallery
    from monai_memo.search.runner import Runner as Runner
    from monai_memo.views import Views as Views

__version__ = "0.1.0"

_MODULES = {
    "Audit": "monai_memo.audit.audit",
    "AuditResult": "monai_memo.audit.result",
    "BestUnderCopyRate": "monai_memo.handlers.copy_rate_limit",
    "Cohort": "monai_memo.data.cohort",
    "CopyDetector": "monai_memo.networks.copy_detector",
    "CopyRate": "monai_memo.metrics.copy_rate",
    "CopyRateMonitor": "monai_memo.handlers.copy_rate_monitor",
    "CopySearch": "monai_memo.search.copy_search",
    "Detector": "monai_memo.detector.detector",
    "EmbeddingIndex": "monai_memo.search.embedding_index",
    "Evaluation": "monai_memo.benchmark.evaluate",
    "FolderGenerator": "monai_memo.generators.folder",
    "Gallery": "monai_memo.search.gallery",
    "Generator": "monai_memo.sampling",
    "LatentDiffusion": "monai_memo.generators.latent_diffusion",
    "MemoError": "monai_memo.errors",
    "Preprocessing": "monai_memo.data.loading",
    "Recipe": "monai_memo.detector.recipe",
    "Runner": "monai_memo.search.runner",
    "Sampler": "monai_memo.generators.sampler",
    "StopAtCopyRate": "monai_memo.handlers.copy_rate_limit",
    "VerifiedCopyRate": "monai_memo.metrics.verified",
    "Views": "monai_memo.views",
    "audit_images": "monai_memo.audit.in_memory",
    "load_generator": "monai_memo.generators.anything",
    "split_by_patient": "monai_memo.data.cohort",
    "train_detector": "monai_memo.detector.training",
}
__all__ = ["__version__", *_MODULES]
__getattr__, __dir__ = lazily(__name__, _MODULES)
