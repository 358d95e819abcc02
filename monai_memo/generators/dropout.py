# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Dropout in MONAI's diffusion model, which has none outside cross-attention."""

from __future__ import annotations

from typing import Any, TypeVar

from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock
from torch import Tensor, nn
from torch.nn import functional

from monai_memo.errors import ConfigurationError

Network = TypeVar("Network", bound=nn.Module)


class _BeforeSecondConvolution:
    """Drops channels' values before the second convolution of a block, as DDPM does; weights keep their names."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        values: Tensor = inputs[0]
        return (functional.dropout(values, self.rate, module.training), *inputs[1:])


def with_dropout(network: Network, rate: float = 0.0) -> Network:
    """The same network, with dropout in each of its residual blocks while it trains.

    Args:
        network: a ``DiffusionModelUNet``, or another one with its blocks.
        rate: share of the values that are dropped; 0 changes nothing.

    Raises:
        ConfigurationError: a rate out of range, or a network without such blocks.
    """
    if not 0 <= rate < 1:
        raise ConfigurationError(f"dropout must lie between 0 and 1, got {rate!r}")
    blocks = [block for block in network.modules() if isinstance(block, DiffusionUNetResnetBlock)]
    if rate and not blocks:
        raise ConfigurationError(f"{type(network).__name__} has no residual block of MONAI's for dropout: leave it out")
    for block in blocks if rate else ():
        block.conv2.register_forward_pre_hook(_BeforeSecondConvolution(rate))
    return network
