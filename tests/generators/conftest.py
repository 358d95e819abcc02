# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Tiny generators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler

from monai_memo.generators.latent_diffusion import LatentDiffusion


def tiny_autoencoder(dims: int = 2, latent_channels: int = 2) -> AutoencoderKL:
    """From 16 to 8 per axis."""
    return AutoencoderKL(
        dims,
        1,
        1,
        channels=(4, 8),
        attention_levels=(False, False),
        num_res_blocks=(1, 1),
        latent_channels=latent_channels,
        norm_num_groups=4,
        with_encoder_nonlocal_attn=False,
        with_decoder_nonlocal_attn=False,
    )


def tiny_diffusion(dims: int = 2, channels: int = 2, **further: Any) -> DiffusionModelUNet:
    return DiffusionModelUNet(
        dims,
        channels,
        channels,
        channels=(8, 8),
        attention_levels=(False, True),
        num_head_channels=(0, 8),
        num_res_blocks=1,
        norm_num_groups=4,
        **further,
    )


def tiny_model(dims: int = 2, batch_size: int = 4) -> LatentDiffusion:
    torch.manual_seed(0)
    scheduler = DDIMScheduler(20, schedule="scaled_linear_beta", clip_sample=False)
    return LatentDiffusion(
        tiny_autoencoder(dims), tiny_diffusion(dims), scheduler, 1.3, [2, *(8,) * dims], 4, batch_size
    )


@pytest.fixture
def model() -> LatentDiffusion:
    return tiny_model()
