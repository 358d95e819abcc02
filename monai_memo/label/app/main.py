# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label loads: ``monailabel start_server --app THIS_FOLDER --studies AUDIT``."""

from __future__ import annotations

from monai_memo.label.server.app import ReviewApp

__all__ = ["ReviewApp"]
