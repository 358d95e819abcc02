# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Learning rates over a training."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR


def cosine_schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: float = 0.0, final_rate: float = 0.0
) -> LambdaLR:
    """Learning rate over ``steps`` optimiser steps: linear rise over the share ``warmup``, then half a cosine."""
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if warmup and step < rise:
            return (step + 1) / rise
        done = min(1.0, (step - rise * bool(warmup)) / max(1, steps - rise * bool(warmup)))
        return final_rate + (1 - final_rate) * 0.5 * (1 + math.cos(math.pi * done))

    return LambdaLR(optimizer, factor)
