# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Local agreement of aligned pairs: windowed correlation in each frequency band."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monai_memo.registration.coarse import warp
from monai_memo.registration.filters import band, octaves, smooth, structured

BEST_SHARE = 0.4  # so that a quarter of the image can be another's and a rim be lost, and the rest still counts
NOTHING = 2e-3  # detail weaker than this (of the intensity range) agrees with nothing
BLURS = (0.0, 0.6, 1.0, 1.5, 2.2)  # pixels; how much blurrier than its original a copy may be
CLOSEST = 1 - 1e-6


def agreement_maps(
    query: Tensor, candidate: Tensor, placements: Tensor, blur: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Where a query agrees with its aligned candidate.

    Args:
        query, candidate: ``(batch, 1, *spatial)`` in [0, 1].
        placements: ``(batch, dims, dims + 1)``, see ``alignment``.
        blur: standard deviation in pixels by which the candidate is blurred before it is compared.

    Returns:
        agreement ``(batch, bands, *spatial)``, correlations from -1 to 1, finest band first;
        visible ``(batch, 1, *spatial)``, 1 where both images have structure;
        the aligned candidate ``(batch, 1, *spatial)``.
    """
    warped, inside = warp(candidate, placements)
    mask = inside * structured(query)
    maps = []
    for low, high in octaves(query.shape[2:]):
        window = high + 2
        first = band(query, mask, low, high)
        second = band(warped, mask, math.hypot(low, blur), math.hypot(high, blur))
        sums = smooth(torch.cat([first * second, first**2, second**2, mask], dim=1), window)
        share = sums[:, 3:].clamp(min=1e-3)
        strength = (sums[:, 1:2] / share + NOTHING**2) * (sums[:, 2:3] / share + NOTHING**2)
        maps.append(sums[:, :1] / share / torch.sqrt(strength))
    return torch.cat(maps, dim=1), mask, warped


def profile(agreement: Tensor, visible: Tensor, best_share: float = BEST_SHARE) -> Tensor:
    """Mean agreement of the best windows in each band.

    Args:
        agreement, visible: of ``agreement_maps``.
        best_share: share of all windows that count; hidden ones count as 0.

    Returns:
        ``(batch, bands)``.
    """
    step = max(1, min(agreement.shape[2:]) // 16)
    every = (slice(None), slice(None), *(slice(step // 2, None, step) for _ in agreement.shape[2:]))
    values = (agreement * visible)[every].flatten(2)
    kept = max(1, int(best_share * values.shape[2]))
    best: Tensor = values.topk(kept, dim=2).values.mean(dim=2)
    return best


def combine(profiles: Tensor) -> Tensor:
    """One similarity from the agreement in all bands: their mean on Fisher's scale, where correlations add up.

    Args:
        profiles: ``(..., bands)``, -1 to 1.

    Returns:
        ``(...)``, -1 to 1.
    """
    return torch.tanh(torch.atanh(profiles.clamp(-CLOSEST, CLOSEST)).mean(dim=-1))


def matched_blur(query: Tensor, candidate: Tensor, placement: Tensor) -> float:
    """The blur of the candidate with which it agrees best: generators and small files blur what they copy.

    Without it a blurred copy would lose its finest bands. Another patient gains nothing from being blurred.

    Args:
        query, candidate: ``(1, 1, *spatial)``.
        placement: ``(1, dims, dims + 1)``.
    """
    values = [float(combine(profile(*agreement_maps(query, candidate, placement, blur)[:2]))) for blur in BLURS]
    return BLURS[max(range(len(BLURS)), key=values.__getitem__)]
