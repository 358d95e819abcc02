# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Samples that are aimed at an image: denoised from its noised latents, or drawn towards it while they form.

Both need the image, so they show what a model can give back and not what somebody gets out of it who has no image: an
upper bound. Whatever any model does with such help (a little noise is removed, whosever image it is) the same search
with held-out images shows as well.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.generators.clean_latent import CorrectedDiffusion, Correction, Predict
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds
from monai_memo.generators.schedulers import is_rectified
from monai_memo.membership.denoiser import Denoiser

GUIDED = "drawn towards it"


class Pull(Correction):
    """Draws predicted clean latents towards targets while noise outweighs image; afterwards the model is on its own.

    So it steers which image forms, and puts in nothing that the model would not finish by itself.

    Args:
        share: of the way to the target, at each step.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.targets: Tensor
        self.register_buffer("targets", torch.zeros(0))

    def forward(self, noisy: Tensor, predict: Predict, alpha: Tensor) -> Tensor:
        """See ``Correction``."""
        clean = predict(noisy)
        pulled = clean + self.share * (self.targets.to(clean) - clean)
        return torch.where(alpha < 0.5, pulled, clean)


def from_noised(
    model: LatentDiffusion, images: NDArray[np.floating], level: float, seed: int,
    told: Mapping[str, Tensor] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Images denoised from their own latents under noise of this share of the timesteps; ``told`` as in scores."""
    return model.denoise_from(images, level, seed, told)


def drawn_towards(
    denoiser: Denoiser, images: NDArray[np.floating], share: float, seed: int,
    told: Mapping[str, Tensor] | None = None,
) -> NDArray[np.float32] | None:  # fmt: skip
    """Samples from pure noise that are drawn towards images; None for rectified flows, which have no such correction.

    Args:
        share: see ``Pull``.
        seed: of the noise: the same for equal numbers of images of both cohorts.
        told: of a model with conditions, those of the images (``Denoiser.told``); None tells nothing.
    """
    if is_rectified(denoiser.model.scheduler) or denoiser.process not in ("epsilon", "v_prediction"):
        return None
    model, pull = copy.copy(denoiser.model), Pull(share)
    model.diffusion = CorrectedDiffusion(model.diffusion, model.scheduler, pull).eval()  # type: ignore[assignment]
    latents, seeds = denoiser.latents(images), sample_seeds(seed, range(len(images)))
    inputs = (told or denoiser.code.untold(len(images))) if denoiser.code else None
    blocks = []
    for start in range(0, len(images), model.batch_size):
        rows = slice(start, start + model.batch_size)
        pull.targets = latents[rows]
        told_here = None if inputs is None else {name: given[rows] for name, given in inputs.items()}
        blocks.append(model.sample(seeds[rows], told=told_here))
    return np.concatenate(blocks)
