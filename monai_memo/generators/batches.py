# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What one training step of a generator sees: MONAI's ``prepare_batch`` for images and for cached latents."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import DiffusionPrepareBatch, PrepareBatch
from torch import Tensor

from monai_memo.views import Views


def augmentation_views(enabled: bool) -> Views | None:
    """The augmentation that Dar et al. (arXiv 2402.01054, v1) found to reduce memorization: flips, +-5 degrees."""
    return Views.paper() if enabled else None


class ImageBatch(PrepareBatch):
    """Images as input and as target, augmented or not.

    The draws come from torch's own generator: attach ``training.batches.SeededSteps`` to the trainer.

    Args:
        views: augmentation; None leaves the images as they are.
    """

    def __init__(self, views: Views | None = None) -> None:
        self.views = views

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """``(batch, channels, *spatial)`` in [0, 1], twice."""
        images = batchdata["image"].to(device, non_blocking=non_blocking)
        if self.views is not None:
            images = self.views(images)
        return images, images


class LatentBatch(DiffusionPrepareBatch):
    """Draw latents from their cached means and standard deviations, scale them, and add noise and timesteps.

    Args:
        scale_factor: brings latents to unit variance.
        num_train_timesteps: of the noise scheduler.
    """

    def __init__(self, scale_factor: float, num_train_timesteps: int) -> None:
        super().__init__(num_train_timesteps)
        self.scale_factor = scale_factor

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Tensor]]:
        """``{"image": (batch, 2, channels, *latent)}`` to scaled latents, noise as target, arguments of the inferer."""
        mean, sigma = batchdata["image"].unbind(dim=1)
        latents = (mean + sigma * torch.randn_like(sigma)) * self.scale_factor
        result: tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Tensor]] = super().__call__(
            {"image": latents}, device, non_blocking, **kwargs
        )
        return result
