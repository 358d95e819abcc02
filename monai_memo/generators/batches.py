# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What one training step of a generator sees: MONAI's ``prepare_batch`` for images and for cached latents."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import DiffusionPrepareBatch, PrepareBatch
from monai.networks.schedulers import Scheduler
from torch import Tensor

from monai_memo.errors import ConfigurationError
from monai_memo.generators.schedulers import RECTIFIED, process_of
from monai_memo.generators.settings import AUGMENTATIONS
from monai_memo.views import Views


def augmentation_views(level: bool | str) -> Views | None:
    """The augmentation that Dar et al. (arXiv 2402.01054, v1) found to reduce memorization: flips, +-5 degrees.

    Args:
        level: one of ``AUGMENTATIONS``; True stands for the last of them, False for the first.

    Raises:
        ConfigurationError: another level.
    """
    if level is True or level == "flips and rotations":
        return Views.paper()
    if level == "flips":
        return Views(p_rotation=0.0)
    if level is False or level == "none":
        return None
    raise ConfigurationError(f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {level!r}")


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

    The target is what the scheduler takes for the network's output: the noise, or the velocity (Salimans & Ho, arXiv
    2202.00512), with which small errors of the network at the noisiest timesteps do not become large ones of the image.
    With an ``RFlowScheduler`` it is what leads from the noise straight to the image.

    Args:
        scale_factor: brings latents to unit variance.
        scheduler: that adds the noise.

    Raises:
        ConfigurationError: a scheduler whose ``prediction_type`` is neither ``"epsilon"`` nor ``"v_prediction"``.
    """

    def __init__(self, scale_factor: float, scheduler: Scheduler) -> None:
        super().__init__(scheduler.num_train_timesteps)
        self.scale_factor, self.scheduler = scale_factor, scheduler
        kind = process_of(scheduler)
        if kind not in ("epsilon", "v_prediction", RECTIFIED):
            raise ConfigurationError(f"prediction_type must be epsilon or v_prediction, got {kind!r}")
        self.velocity, self.rectified = kind == "v_prediction", kind == RECTIFIED

    def get_timesteps(self, images: Tensor) -> Tensor:
        """One for each image, as the scheduler draws them."""
        if self.rectified:
            found: Tensor = self.scheduler.sample_timesteps(images)
            return found
        drawn: Tensor = super().get_timesteps(images)
        return drawn

    def get_target(self, images: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should say, in the shape of ``images``."""
        if self.rectified:  # along the line from noise to image: Liu et al., arXiv 2209.03003
            return images - noise
        target: Tensor = self.scheduler.get_velocity(images, noise, timesteps) if self.velocity else noise
        return target

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Tensor]]:
        """``{"image": (batch, 2, channels, *latent)}`` to scaled latents, target, arguments of the inferer."""
        mean, sigma = batchdata["image"].unbind(dim=1)
        latents = (mean + sigma * torch.randn_like(sigma)) * self.scale_factor
        result: tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Tensor]] = super().__call__(
            {"image": latents}, device, non_blocking, **kwargs
        )
        return result
