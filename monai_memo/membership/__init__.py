# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""May the model itself be shared? Membership inference, and searches that are aimed at training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.membership.attack import Attack as Attack
    from monai_memo.membership.attack import Group as Group
    from monai_memo.membership.attack import attack_model as attack_model
    from monai_memo.membership.denoiser import Denoiser as Denoiser
    from monai_memo.membership.denoiser import load_denoiser as load_denoiser
    from monai_memo.membership.extraction import Extraction as Extraction
    from monai_memo.membership.membership import Membership as Membership

_MODULES = {
    "Attack": "monai_memo.membership.attack",
    "Denoiser": "monai_memo.membership.denoiser",
    "Extraction": "monai_memo.membership.extraction",
    "Membership": "monai_memo.membership.membership",
    "Group": "monai_memo.membership.attack",
    "attack_model": "monai_memo.membership.attack",
    "load_denoiser": "monai_memo.membership.denoiser",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
