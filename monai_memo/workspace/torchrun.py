# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What ``torchrun`` tells each of the processes that it starts, by its environment."""

from __future__ import annotations

import os


def rank_of_torchrun() -> int:
    """This process' number among those that ``torchrun`` has started; 0 without it."""
    return int(os.environ.get("RANK", "0") or 0)


def world_of_torchrun() -> int:
    """How many processes ``torchrun`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1)


def local_rank() -> int:
    """This process' number on its machine; 0 without ``torchrun``."""
    return int(os.environ.get("LOCAL_RANK", "0") or 0)
