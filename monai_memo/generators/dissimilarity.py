# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Anti-memorization guidance in its simplest form: away from the nearest training latent, where one is too near.

Of Chen, Liu and Xu (Towards Memorization-Free Diffusion Models, CVPR 2024) this is dissimilarity guidance alone, with
the similarity of Carlini et al. (2023) in latents. Their despecification and caption guidance are for models with text
or classes, which these have none of; their threshold falls with the noise, here it is one number from unseen patients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_memo.errors import ConfigurationError
from monai_memo.generators.clean_latent import Correction, Predict
from monai_memo.generators.repellency import distances

NEIGHBOURS = 50  # whose mean distance says what is near in this part of the space
ALPHA = 0.5  # of Carlini et al.


def nearness(latents: Tensor, references: Tensor) -> Tensor:
    """``(n,)`` distance to the nearest reference, over half the mean distance to the 50 nearest. Small is near.

    Example:
        >>> nearness(torch.zeros(1, 1), torch.tensor([[1.0], [3.0]])).tolist()
        [1.0]
    """
    nearest = distances(latents, references).topk(min(NEIGHBOURS, len(references)), dim=1, largest=False).values
    return nearest[:, 0] / (ALPHA * nearest.mean(dim=1)).clamp_min(1e-8)


class DissimilarityGuidance(Correction):
    """Guide samples away from training images that they come too near to.

    ``noise + scale sqrt(1 - alpha) grad nearness-of-x``, with its sign so that nearness grows. The gradient goes
    through the network, which takes about three times as long.

    Args:
        references: training latents, scaled as the diffusion model sees them.
        limit: of nearness, above which nothing is changed, see ``nearness_limit``.
        scale: of the guidance.
    """

    def __init__(self, references: Tensor, limit: float, scale: float) -> None:
        super().__init__()
        if scale <= 0:
            raise ConfigurationError(f"the scale of dissimilarity guidance must be above 0, got {scale!r}")
        self.references: Tensor
        self.register_buffer("references", references.float())
        self.limit, self.scale = float(limit), float(scale)

    def forward(self, noisy: Tensor, predict: Predict, alpha: Tensor) -> Tensor:
        """See ``Correction``."""
        with torch.enable_grad():
            start = noisy.detach().requires_grad_()
            clean = predict(start)
            near = nearness(clean, self.references)
            (away,) = torch.autograd.grad(near.sum(), start)
        guided = (near < self.limit).view(-1, *(1,) * (noisy.ndim - 1))
        # Noise is changed by -scale sqrt(1 - alpha) away, so the clean latent by the following.
        return clean.detach() + guided * self.scale * (1 - alpha) / alpha.sqrt() * away


def nearness_limit(training: Tensor, heldout: Tensor, quantile: float = 0.05) -> float:
    """Nearness that this share of unseen patients stays below."""
    return float(nearness(heldout, training).quantile(quantile))
