# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The box that shows anything: what is left of an image between margins."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Box = tuple[Tensor, Tensor]  # centre and half length, each (..., dims), last axis first; images reach from -1 to 1


def grown(mask: Tensor) -> Tensor:
    """By a pixel to all sides, axis by axis: ``(n, 1, *spatial)``."""
    dims = mask.ndim - 2
    pool = functional.max_pool2d if dims == 2 else functional.max_pool3d
    for axis in range(dims):
        width, rim = [1] * dims, [0] * dims
        width[axis], rim[axis] = 3, 1
        mask = pool(mask, width, stride=1, padding=rim)
    return mask


def bounds(mask: Tensor) -> Box:
    """The box around what a mask ``(n, 1, *spatial)`` shows; all of the image where that is nothing."""
    centres, halves = [], []
    for axis in reversed(range(2, mask.ndim)):
        there = mask.amax(dim=[other for other in range(1, mask.ndim) if other != axis]) > 0.5
        length = there.shape[1]
        place = torch.arange(length, device=mask.device)
        first = torch.where(there, place, length).amin(dim=1)
        last = torch.where(there, place, -1).amax(dim=1)
        none = last < first
        first, last = torch.where(none, 0, first), torch.where(none, length - 1, last)
        centres.append((first + last + 1) / length - 1)
        halves.append((last + 1 - first) / length)
    return torch.stack(centres, dim=1), torch.stack(halves, dim=1)


def unboxed(thetas: Tensor, here: Box, there: Box, unit: Tensor) -> Tensor:
    """Transforms from box to box as those from image to image.

    Args:
        thetas: ``(..., dims, dims + 1)`` in units of the boxes.
        here, there: boxes of queries and of candidates.
        unit: of ``registration.affine.half_lengths``.
    """
    (centre, half), (their_centre, their_half) = here, there
    linear = their_half[..., None] * thetas[..., :-1] / half[..., None, :]
    shift = their_centre + their_half * thetas[..., -1] - (linear @ centre[..., None])[..., 0]
    linear = unit[:, None] * linear / unit
    return torch.cat([linear, (unit * shift)[..., None]], dim=-1)
