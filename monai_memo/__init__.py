# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Does a medical image generator hand out its training patients?

The public names are loaded when they are used, so that ``import monai_memo`` is quick.

Example:
    >>> from monai_memo import Audit
    >>> result = Audit(train="train", heldout="heldout", synthetic="synthetic", out="out").run()  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Audit": "monai_memo.audit.audit",
    "AuditResult": "monai_memo.audit.result",
    "Cohort": "monai_memo.data.cohort",
    "split_by_patient": "monai_memo.data.cohort",
    "Preprocessing": "monai_memo.data.loading",
    "Detector": "monai_memo.detector.detector",
    "Recipe": "monai_memo.detector.recipe",
    "train_detector": "monai_memo.detector.training",
    "CopyDetector": "monai_memo.networks.copy_detector",
    "Views": "monai_memo.views",
    "CopyRate": "monai_memo.metrics.copy_rate",
    "CopyRateMonitor": "monai_memo.handlers.copy_rate_monitor",
    "BestUnderCopyRate": "monai_memo.handlers.copy_rate_limit",
    "StopAtCopyRate": "monai_memo.handlers.copy_rate_limit",
    "Generator": "monai_memo.sampling",
    "FolderGenerator": "monai_memo.generators.folder",
    "LatentDiffusion": "monai_memo.generators.latent_diffusion",
    "Sampler": "monai_memo.generators.sampler",
    "EmbeddingIndex": "monai_memo.search.embedding_index",
    "Evaluation": "monai_memo.benchmark.evaluate",
    "MemoError": "monai_memo.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'monai_memo' has no attribute {name!r}")
