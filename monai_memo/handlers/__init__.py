# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: copy rates while a generator trains, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_memo.lazy import lazily

if TYPE_CHECKING:
    from monai_memo.handlers.copy_rate_limit import BestUnderCopyRate as BestUnderCopyRate
    from monai_memo.handlers.copy_rate_limit import StopAtCopyRate as StopAtCopyRate
    from monai_memo.handlers.copy_rate_monitor import CopyRateMonitor as CopyRateMonitor
    from monai_memo.handlers.copy_rate_monitor import MonitorOptions as MonitorOptions

_MODULES = {
    "BestUnderCopyRate": "monai_memo.handlers.copy_rate_limit",
    "CopyRateMonitor": "monai_memo.handlers.copy_rate_monitor",
    "MonitorOptions": "monai_memo.handlers.copy_rate_monitor",
    "StopAtCopyRate": "monai_memo.handlers.copy_rate_limit",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazily(__name__, _MODULES)
