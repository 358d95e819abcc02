# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics in MONAI's form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.metrics.copy_rate import CopyRate as CopyRate
    from monai_memo.metrics.copy_rate import RateOptions as RateOptions
    from monai_memo.metrics.copy_rate import copy_rates as copy_rates
    from monai_memo.metrics.images import embed_images as embed_images
    from monai_memo.metrics.reference import ReferenceOptions as ReferenceOptions
    from monai_memo.metrics.reference import copy_rate_from_cohorts as copy_rate_from_cohorts
    from monai_memo.metrics.verified import VerifiedCopyRate as VerifiedCopyRate
    from monai_memo.metrics.verified import VerifiedOptions as VerifiedOptions

_MODULES = {
    "CopyRate": "monai_memo.metrics.copy_rate",
    "RateOptions": "monai_memo.metrics.copy_rate",
    "ReferenceOptions": "monai_memo.metrics.reference",
    "VerifiedCopyRate": "monai_memo.metrics.verified",
    "VerifiedOptions": "monai_memo.metrics.verified",
    "copy_rate_from_cohorts": "monai_memo.metrics.reference",
    "copy_rates": "monai_memo.metrics.copy_rate",
    "embed_images": "monai_memo.metrics.images",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
