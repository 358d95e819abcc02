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


@lru_cache(maxsize=512)
def gaussian(length: int, sigma: float, device: torch.device, every: int = 1) -> Tensor:
    """``(length, kept)`` Gaussian weights; beyond the ends there is nothing.

    Args:
        length: of the axis, in pixels.
        sigma: standard deviation in pixels.
        device: where it is needed.
        every: only these pixels are asked for, from ``every // 2`` on.
    """
    position = torch.arange(length, dtype=torch.float32, device=device)
    weights = torch.exp(-0.5 * ((position[:, None] - position[None, every // 2 :: every]) / sigma) ** 2)
    return weights / (sigma * (2 * torch.pi) ** 0.5)


def along_axes(images: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """A separable filter: one matrix for each spatial axis.

    Args:
        images: ``(batch, channels, *spatial)``.
        matrices: for each axis ``(length, kept)``, or ``(batch, 1, length, kept)`` with one for each image.

    Returns:
        ``(batch, channels, *kept)``.
    """
    for axis in range(images.ndim - 1, 1, -1):  # the last axis first: where fewer pixels are kept, the rest is cheaper
        matrix, shape = matrices[axis - 2], images.shape
        if axis == images.ndim - 1:
            images = images @ _spread(matrix, images.ndim)
        else:
            flat = images.reshape(*shape[: axis + 1], -1)
            images = _spread(matrix, flat.ndim).transpose(-1, -2) @ flat
            images = images.reshape(*shape[:axis], matrix.shape[-1], *shape[axis + 1 :])
    return images


def _spread(matrix: Tensor, ndim: int) -> Tensor:
    """``(batch, 1, length, kept)`` with axes of length 1 between, so that it multiplies tensors of ``ndim`` axes."""
    if matrix.ndim == 2:
        return matrix
    return matrix.view(*matrix.shape[:2], *(1,) * (ndim - 4), *matrix.shape[2:])


def smooth(images: Tensor, sigma: float, every: int = 1) -> Tensor:
    """Gaussian smoothing with zeros beyond the border, axis by axis as matrix products (quick for small images).

    Args:
        images: ``(batch, channels, *spatial)``.
        sigma: standard deviation in pixels.
        every: only every so many pixels of the result, from ``every // 2`` on.
    """
    return along_axes(images, [gaussian(length, sigma, images.device, every) for length in images.shape[2:]])


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


def local_contrast(images: Tensor, mask: Tensor, low: float, high: float, window: float) -> Tensor:
    """One band, divided by its local strength: the same for any brightness curve, what alignment looks at."""
    detail = band(images, mask, low, high)
    strength = smooth(detail**2, window) / smooth(mask, window).clamp(min=1e-3)
    return detail / torch.sqrt(strength + 4e-3**2)


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
