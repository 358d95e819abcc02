# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch
from torch import nn

from monai_memo.generators.memory import step_memory


def test_counts_what_autograd_keeps() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1))

    memory = step_memory(build, (2, 1, 8, 8), copies=1)
    real = build()
    assert memory.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert memory.weight_bytes == memory.parameters * 4 * 5
    # The input, the first convolution's output (kept by SiLU) and SiLU's output (kept by the second convolution).
    assert memory.activation_bytes == 4 * 2 * 64 * (1 + 4 + 4)
    assert step_memory(build, (4, 1, 8, 8)).activation_bytes == 2 * memory.activation_bytes
    assert memory.gib(autocast=True) < memory.gib()
    assert all(parameter.device == torch.device("cpu") for parameter in real.parameters())
