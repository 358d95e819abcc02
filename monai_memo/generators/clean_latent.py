# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Change what a diffusion model takes for the clean latent at each step of its sampling; works with any scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators.schedulers import is_rectified, process_of

Predict = Callable[[Tensor], Tensor]  # noisy latents to predicted clean ones


class Correction(nn.Module):
    """One change of the predicted clean latents. What it compares with are buffers, so that it has an identity."""

    def forward(self, noisy: Tensor, predict: Predict, alpha: Tensor) -> Tensor:
        """Corrected clean latents.

        Args:
            noisy: ``(batch, channels, *latent)``.
            predict: the network's prediction of the clean latents, for this step and any noisy ones.
            alpha: cumulative product of this step: the share of the clean latent in the variance of the noisy one.
        """
        raise NotImplementedError


class CorrectedDiffusion(nn.Module):
    """A diffusion model whose predicted clean latents are corrected. Takes its place in ``LatentDiffusion``.

    The network's output is turned into the clean latent that it stands for, that is corrected, and turned back: the
    noise that remains is what leads from the corrected latent to the noisy one (Tweedie's formula).

    Args:
        network: predicts noise or velocity.
        scheduler: that it was trained with.
        correction: of the clean latents.

    Raises:
        ConfigurationError: a scheduler with another ``prediction_type``.
    """

    def __init__(self, network: nn.Module, scheduler: Scheduler, correction: Correction) -> None:
        super().__init__()
        if is_rectified(scheduler):
            raise ConfigurationError(
                "repel and dissimilarity need a noise schedule with betas: scheduler rflow has none, leave them out"
            )
        self.network, self.correction = network, correction
        self.alphas: Tensor
        self.register_buffer("alphas", torch.as_tensor(scheduler.alphas_cumprod).clone().float())
        kind = process_of(scheduler)
        if kind not in ("epsilon", "v_prediction"):
            raise ConfigurationError(f"prediction_type must be epsilon or v_prediction, got {kind!r}")
        self.velocity = kind == "v_prediction"
        for name in ("in_channels", "block_out_channels"):
            if hasattr(network, name):
                setattr(self, name, getattr(network, name))

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **further: Any) -> Tensor:
        """The network's output, as it would be for the corrected clean latents.

        Args:
            x: noisy latents.
            timesteps: of the step, one for all or one for each.
            context, further: for the network.
        """
        alpha = self.alphas[timesteps.long()].view(-1, *(1,) * (x.ndim - 1))
        keep, share = alpha.sqrt(), (1 - alpha).sqrt()

        def predict(noisy: Tensor) -> Tensor:
            output = self.network(noisy, timesteps=timesteps, context=context, **further)
            clean: Tensor = keep * noisy - share * output if self.velocity else (noisy - share * output) / keep
            return clean

        clean = self.correction(x, predict, alpha)
        noise = (x - keep * clean) / share
        return keep * noise - share * clean if self.velocity else noise
