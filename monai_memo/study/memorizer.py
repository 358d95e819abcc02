# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The diffusion model that memorized everything, in closed form: what a switch must not make look good."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn


class ClosedFormMemorizer(nn.Module):
    """The optimal denoiser of a few latents: their mean, weighted by how probable each is given the noisy one.

    It can draw nothing but these latents. Takes the place of the network in ``LatentDiffusion``.

    Args:
        latents: ``(n, channels, *spatial)``, scaled as a diffusion model sees them.
        scheduler: with ``alphas_cumprod`` and a ``prediction_type``.
    """

    def __init__(self, latents: Tensor, scheduler: Scheduler) -> None:
        super().__init__()
        self.latents: Tensor
        self.alphas: Tensor
        self.register_buffer("latents", latents.clone().float())
        self.register_buffer("alphas", torch.as_tensor(scheduler.alphas_cumprod).clone().float())
        self.velocity = str(getattr(scheduler, "prediction_type", "epsilon")) == "v_prediction"

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, **_: Any) -> Tensor:
        """The output of a network that predicts noise, or velocity."""
        one = (-1, *(1,) * (x.ndim - 1))
        alpha = self.alphas[timesteps.long()].view(one)
        keep, share = alpha.sqrt(), (1 - alpha).sqrt()
        square = ((x[:, None] - keep[:, None] * self.latents) ** 2).flatten(2).sum(dim=2)
        weights = (-square / (2 * (1 - alpha).view(-1, 1))).softmax(dim=1)
        clean = (weights @ self.latents.flatten(1)).view_as(x)
        noise = (x - keep * clean) / share
        return keep * noise - share * clean if self.velocity else noise
