# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Frequency bands of images with missing parts.

What all patients share lies in the coarse structure, what noise and blurring destroy in the finest; who a patient is
shows in between. Images are therefore compared band by band. All filters are normalised convolutions (Knutsson, Westin,
CVPR 1993): a mask says which pixels count, so that erased boxes and the rim left by a rotation have no edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

FLAT = 2e-3  # less than a grey level of 8 bits


@lru_cache(maxsize=256)
def _smoothing_matrix(length: int, sigma: float) -> Tensor:
    """``(length, length)`` Gaussian weights; beyond the ends there is nothing."""
    position = torch.arange(length, dtype=torch.float32)
    weights = torch.exp(-0.5 * ((position[:, None] - position[None]) / sigma) ** 2)
    return weights / (sigma * (2 * torch.pi) ** 0.5)


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Gaussian smoothing with zeros beyond the border, axis by axis as matrix products (quick for small images).

    Args:
        images: ``(batch, channels, *spatial)``.
        sigma: standard deviation in pixels.
    """
    for axis in range(2, images.ndim):
        matrix = _smoothing_matrix(images.shape[axis], sigma).to(images.device)
        if axis == images.ndim - 1:
            images = images @ matrix
        else:
            shape = images.shape
            images = (matrix @ images.reshape(*shape[: axis + 1], -1)).reshape(shape)
    return images


def band(images: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """What lies between two Gaussian scales, zero where the mask is.

    Args:
        images: ``(batch, channels, *spatial)``.
        mask: ``(batch, 1, *spatial)``, 1 where pixels count, 0 elsewhere.
        low, high: standard deviations in pixels.
    """
    masked = images * mask
    fine = smooth(masked, low) / smooth(mask, low).clamp(min=1e-3)
    coarse = smooth(masked, high) / smooth(mask, high).clamp(min=1e-3)
    return (fine - coarse) * mask


def octaves(shape: Sequence[int]) -> list[tuple[float, float]]:
    """The bands that images of this shape are compared in: octaves from half a pixel to 1/16 of the shortest axis.

    Example:
        >>> octaves((64, 64))
        [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]
    """
    bands = [(0.5, 1.0), (1.0, 2.0)]
    while 2 * bands[-1][1] <= min(shape) / 16:
        bands.append((bands[-1][1], 2 * bands[-1][1]))
    return bands


def structured(images: Tensor) -> Tensor:
    """Where an image shows anything: 0 in areas of a single grey value (erased, outside the picture), 1 elsewhere.

    Args:
        images: ``(batch, 1, *spatial)`` in [0, 1].

    Returns:
        ``(batch, 1, *spatial)`` float.
    """
    pool = functional.max_pool2d if images.ndim == 4 else functional.max_pool3d
    spread = pool(images, 3, stride=1, padding=1) + pool(-images, 3, stride=1, padding=1)
    flat = (spread < FLAT).to(images.dtype)
    # Single flat pixels belong to the picture: only areas are left by the erosion. They grow back to their edge (the
    # erosion and the spread took one pixel each) and one pixel further, where resizing has mixed both sides.
    areas = -pool(-flat, 3, stride=1, padding=1)
    return (1 - pool(areas, 7, stride=1, padding=3)) * _without_rim(images)


def _without_rim(images: Tensor) -> Tensor:
    """0 in outermost rows, columns or slices of a single grey value and one further in, 1 elsewhere.

    The rim of a copy that was zoomed out can be a pixel wide: too thin for an area, and its edge would draw alignment.
    """
    kept = torch.ones_like(images)
    for axis in range(2, images.ndim):
        others = [other for other in range(1, images.ndim) if other != axis]
        flat = (images.amax(dim=others, keepdim=True) - images.amin(dim=others, keepdim=True) < FLAT).to(images.dtype)
        for reverse in (False, True):
            rim = (flat.flip(axis) if reverse else flat).cumprod(dim=axis)
            further = torch.cat([rim.narrow(axis, 0, 1), rim.narrow(axis, 0, rim.shape[axis] - 1)], dim=axis)
            rim = torch.maximum(rim, further)
            kept = kept * (1 - (rim.flip(axis) if reverse else rim))
    return kept
