# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Sparse repellency: no sample ends within a shield around a training image's latent (arXiv 2410.06025)."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_memo.errors import ConfigurationError
from monai_memo.generators.clean_latent import Correction, Predict

SMALLEST = 1e-8  # of a distance: a latent in the middle of a shield has no direction to go


def distances(latents: Tensor, references: Tensor, block: int = 64) -> Tensor:
    """``(n, m)`` Euclidean distances of latents ``(n, ...)`` and ``(m, ...)``."""
    flat, others = latents.flatten(1).float(), references.flatten(1).float()
    return torch.cat([torch.cdist(part, others) for part in flat.split(block)])


def shield_radius(training: Tensor, heldout: Tensor, quantile: float) -> float:
    """Radius that leaves this share of unseen patients within a shield, whose images nobody would call copies.

    The quantile of the distances of held-out latents to their nearest training latent.

    Example:
        >>> shield_radius(torch.zeros(1, 1, 1), torch.arange(11.0).view(11, 1, 1), 0.5)
        5.0
    """
    if not 0 < quantile < 1:
        raise ConfigurationError(f"repel must lie between 0 and 1, got {quantile!r}")
    nearest = distances(heldout, training).min(dim=1).values
    return float(nearest.quantile(quantile))


class SparseRepellency(Correction):
    """Push predicted clean latents out of shields around training latents.

    The term of Kirchhof et al. for each shield that holds the latent, ``(r / d - 1) (x - z)``: it moves ``x`` straight
    away from the training latent ``z`` to the shield's surface. Nothing else is changed, and no gradient is needed.
    Where shields overlap, their sum overshoots: only the nearest ones count.

    Args:
        references: training latents ``(n, channels, *latent)``, scaled as the diffusion model sees them.
        radius: of the shields, see ``shield_radius``.
        shields: nearest ones that push.
    """

    def __init__(self, references: Tensor, radius: float, shields: int = 1) -> None:
        super().__init__()
        if radius <= 0 or shields < 1:
            raise ConfigurationError(f"shields need a radius above 0 and at least one of them, got {radius}, {shields}")
        self.references: Tensor
        self.register_buffer("references", references.float())
        self.radius, self.shields = float(radius), int(shields)

    def forward(self, noisy: Tensor, predict: Predict, alpha: Tensor) -> Tensor:
        """See ``Correction``."""
        clean = predict(noisy)
        apart, nearest = distances(clean, self.references).topk(min(self.shields, len(self.references)), largest=False)
        push = (self.radius / apart.clamp_min(SMALLEST) - 1).clamp_min(0)
        away = clean[:, None] - self.references[nearest]
        return clean + (push.view(*push.shape, *(1,) * (clean.ndim - 1)) * away).sum(dim=1).to(clean.dtype)
