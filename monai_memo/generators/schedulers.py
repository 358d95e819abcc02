# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Noise schedulers by name: what a diffusion model is trained with, and what it is sampled with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, PNDMScheduler, RFlowScheduler, Scheduler
from torch import nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators.settings import SCHEDULERS

RECTIFIED = "rflow"  # what weights say of themselves that were trained by a rectified flow


class RectifiedFlow(RFlowScheduler):
    """``RFlowScheduler`` with uniform timesteps, and a whole ``torch.nn.Module``, which MONAI's leaves unfinished.

    Args:
        num_train_timesteps: into which the way from noise to image is divided.
    """

    def __init__(self, num_train_timesteps: int = 1000) -> None:
        nn.Module.__init__(self)
        super().__init__(num_train_timesteps=num_train_timesteps)


def sampling_scheduler(
    name: str, num_train_timesteps: int, prediction_type: str, beta_start: float, beta_end: float
) -> Scheduler:
    """The scheduler that removes the noise.

    Args:
        name: ``"ddim"`` (deterministic), ``"ddpm"`` (draws noise at every step), ``"pndm"`` (pseudo linear multistep)
            or ``"rflow"`` (for models that were trained by a rectified flow, which has neither betas nor another
            prediction).
        num_train_timesteps, prediction_type, beta_start, beta_end: as in training.

    Raises:
        ConfigurationError: another name.
    """
    if name == "rflow":
        return RectifiedFlow(num_train_timesteps)
    if name not in SCHEDULERS:
        raise ConfigurationError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")
    betas: dict[str, Any] = {"schedule": "scaled_linear_beta", "beta_start": beta_start, "beta_end": beta_end}
    if name == "pndm":
        # Without the Runge-Kutta steps, whose timesteps cannot begin in the middle (SDEdit).
        return PNDMScheduler(num_train_timesteps, skip_prk_steps=True, prediction_type=prediction_type, **betas)
    make = DDIMScheduler if name == "ddim" else DDPMScheduler
    return make(num_train_timesteps, prediction_type=prediction_type, clip_sample=False, **betas)


def training_scheduler(
    name: str, num_train_timesteps: int, prediction_type: str, beta_start: float, beta_end: float
) -> Scheduler:
    """The scheduler that adds the noise in training, for a sampler of this name: a rectified flow, or DDPM."""
    return sampling_scheduler(
        name if name not in ("ddim", "pndm") else "ddpm", num_train_timesteps, prediction_type, beta_start, beta_end
    )


def process_of(scheduler: Scheduler) -> str:
    """What a network learns with this scheduler: ``"epsilon"``, ``"v_prediction"`` or ``"rflow"``."""
    if is_rectified(scheduler):
        return RECTIFIED
    kind = getattr(scheduler, "prediction_type", "epsilon")
    return str(getattr(kind, "value", kind))


def is_rectified(scheduler: Scheduler) -> bool:
    """Whether noise and image are mixed along a straight line, without betas."""
    return isinstance(scheduler, RFlowScheduler)


def identity_of(scheduler: Scheduler) -> object:
    """What decides the images of a scheduler, in the types that ``monai_memo.sealing.fingerprint`` takes."""
    if not is_rectified(scheduler):
        return scheduler
    plain = {name: value for name, value in vars(scheduler).items() if isinstance(value, bool | int | float | str)}
    return {"kind": RECTIFIED, **{name: str(value) for name, value in sorted(plain.items()) if name[0] != "_"}}


def set_timesteps(scheduler: Scheduler, steps: int, latent_shape: Sequence[int]) -> None:
    """``scheduler.set_timesteps``, with the size of the latents for those that want it."""
    if isinstance(scheduler, RFlowScheduler):
        scheduler.set_timesteps(steps, input_img_size_numel=math.prod(latent_shape[1:]))
    else:
        scheduler.set_timesteps(steps)
