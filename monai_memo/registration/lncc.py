# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Local normalised cross-correlation (LNCC) of aligned pairs, in each frequency band."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_memo.registration.affine import warp
from monai_memo.registration.filters import along_axes, gaussian, octaves, smooth

BEST_SHARE = 0.4  # so that a quarter of the image can be another's and a rim be lost, and the rest still counts
FEWEST_SHARE = {2: 0.15, 3: 0.06}  # of pictures, of volumes: two fifths of each axis, as good as
NOTHING = 2e-3  # detail weaker than this (of the intensity range) agrees with nothing
BLURS = (0.0, 0.6, 1.0, 1.5, 2.2, 3.2, 4.5)  # pixels; how much blurrier than its original a copy may be
CLOSEST = 1 - 1e-6


def step_between_windows(shape: Sequence[int]) -> int:
    """Windows are compared every so many pixels: about 16 along the shortest axis."""
    return max(1, min(shape) // 16)


def lncc_maps(
    query: Tensor,
    structure: Tensor,
    candidate: Tensor,
    thetas: Tensor,
    blur: float | Tensor = 0.0,
    every: int = 1,
    beyond: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Where queries agree with their aligned candidates.

    Args:
        query, candidate: ``(batch, 1, *spatial)`` in [0, 1].
        structure: ``(batch, 1, *spatial)`` of ``filters.structured(query)``.
        thetas: ``(batch, dims, dims + 1)``, see ``affine``.
        blur: standard deviation in pixels by which candidates are blurred before they are compared, or ``(batch,)``
            places in ``BLURS``.
        every: only windows at every so many pixels, from ``every // 2`` on.
        beyond: by how much windows are wider than what a band smooths over; standard deviation in pixels.

    Returns:
        agreement ``(batch, bands, *kept)``, correlations from -1 to 1, finest band first;
        visible ``(batch, 1, *kept)``, 1 where both images have structure.
    """
    warped, inside = warp(candidate, thetas)
    mask = inside * structure
    bands = octaves(query.shape[2:])
    both = query.new_empty(len(mask), 3, *query.shape[2:])  # written into: joining tensors afterwards takes far longer
    torch.mul(query, mask, out=both[:, :1])
    torch.mul(warped, mask, out=both[:, 1:2])
    both[:, 2:] = mask
    fine, maps = _scale(both, bands[0][0], blur), []
    for _, high in bands:
        coarse = _scale(both, high, blur)
        detail = (fine - coarse) * mask
        products = query.new_empty(len(mask), 4, *query.shape[2:])
        torch.mul(detail[:, :1], detail[:, 1:], out=products[:, :1])
        torch.mul(detail, detail, out=products[:, 1:3])
        products[:, 3:] = mask
        sums = smooth(products, high + beyond, every)
        share = sums[:, 3:].clamp(min=1e-3)
        strength = (sums[:, 1:2] / share + NOTHING**2) * (sums[:, 2:3] / share + NOTHING**2)
        maps.append(sums[:, :1] / share / torch.sqrt(strength))
        fine = coarse
    kept = (slice(None), slice(None), *(slice(every // 2, None, every) for _ in query.shape[2:]))
    return torch.cat(maps, dim=1), mask[kept]


def _scale(both: Tensor, sigma: float, blur: float | Tensor) -> Tensor:
    """Both images at one Gaussian scale, by normalised convolution; the second one blurred on top.

    Args:
        both: ``(batch, 3, *spatial)``: query, candidate, mask.

    Returns:
        ``(batch, 2, *spatial)``.
    """
    if isinstance(blur, float) and blur == 0:
        sums = smooth(both, sigma)
        return sums[:, :2] / sums[:, 2:].clamp(min=1e-3)
    first = smooth(both[:, ::2], sigma)
    if isinstance(blur, float):
        second = smooth(both[:, 1:], math.hypot(sigma, blur))
    else:
        second = along_axes(both[:, 1:], [
            torch.stack([gaussian(length, math.hypot(sigma, one), both.device) for one in BLURS])[blur].unsqueeze(1)
            for length in both.shape[2:]
        ])  # fmt: skip
    sums = torch.cat([first[:, :1], second[:, :1]], dim=1)
    return sums / torch.cat([first[:, 1:], second[:, 1:]], dim=1).clamp(min=1e-3)


def profile(agreement: Tensor, visible: Tensor, best_share: float = BEST_SHARE) -> Tensor:
    """Mean agreement of the best windows in each band.

    Args:
        agreement, visible: of ``lncc_maps``, at the windows that are compared.
        best_share: share of all windows that count. Where fewer are visible, these count, bad ones as well: the best of
            a few would be high by chance. Below ``FEWEST_SHARE`` hidden ones count as 0.

    Returns:
        ``(batch, bands)``.
    """
    values = (agreement * visible).flatten(2)
    fewest = FEWEST_SHARE[agreement.ndim - 2]
    count = values.shape[2]
    kept = max(1, int(best_share * count))
    # The mean of the highest ones, without putting them in order: those above the lowest that counts, and that one.
    lowest = values.kthvalue(count - kept + 1, dim=2, keepdim=True).values
    best: Tensor = lowest[:, :, 0] + (values - lowest).clamp(min=0).sum(dim=2) / kept
    seen = visible.flatten(2).sum(dim=2)
    return torch.where(seen < kept, values.sum(dim=2) / seen.clamp(min=fewest * count), best)


def profiles_of(
    query: Tensor, structure: Tensor, candidate: Tensor, thetas: Tensor, blur: float | Tensor = 0.0
) -> Tensor:
    """``profile`` of ``lncc_maps``: ``(batch, bands)``."""
    step = step_between_windows(query.shape[2:])
    return profile(*lncc_maps(query, structure, candidate, thetas, blur, step))


def combine(profiles: Tensor) -> Tensor:
    """One similarity from the agreement in all bands: their mean on Fisher's scale, where correlations add up.

    Args:
        profiles: ``(..., bands)``, -1 to 1.

    Returns:
        ``(...)``, -1 to 1.
    """
    return torch.tanh(torch.atanh(profiles.clamp(-CLOSEST, CLOSEST)).mean(dim=-1))


def matched_blur(query: Tensor, structure: Tensor, candidate: Tensor, thetas: Tensor, sharp: Tensor) -> Tensor:
    """The blur of each candidate with which it agrees best: generators and small files blur what they copy.

    Without it a blurred copy would lose its finest bands. Another patient gains nothing from being blurred.

    Args:
        query, structure, candidate, thetas: of ``lncc_maps``.
        sharp: ``(batch,)`` similarity without any blur.

    Returns:
        ``(batch,)`` places in ``BLURS``.
    """
    values = [sharp]
    for blur in BLURS[1:]:
        values.append(combine(profiles_of(query, structure, candidate, thetas, blur)))
    return torch.stack(values).argmax(dim=0)
