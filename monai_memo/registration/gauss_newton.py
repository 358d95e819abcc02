# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Gauss-Newton steps: from a coarse transform to one that holds to the pixel."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.affine import coordinates, grid_of, within
from monai_memo.registration.filters import smooth

WINDOW = 4.0  # pixels; standard deviation of the windows in which agreement is measured
LARGE = {2: 64, 3: 32}  # pixels along the shortest axis, from which every second one along each axis is looked at
MOST_PER_STEP = 0.12  # change of any parameter in one Gauss-Newton step


@lru_cache(maxsize=16)
def _basis(dims: int, affine: bool, device: torch.device) -> Tensor:
    """``(parameters, dims, dims)`` directions in which a theta may move besides shifts."""
    if affine:
        return torch.eye(dims * dims).view(-1, dims, dims).to(device)
    directions = [torch.eye(dims)]
    for first, second in combinations(range(dims), 2):
        turn = torch.zeros(dims, dims)
        turn[first, second], turn[second, first] = -1.0, 1.0
        directions.append(turn)
    return torch.stack(directions).to(device)


def refine(
    thetas: Tensor,
    query: Tensor,
    candidate: Tensor,
    steps: int = 8,
    affine: bool = False,
    points: int | None = None,
) -> Tensor:
    """Gauss-Newton steps on the difference of ``local_contrast``, weighted by how well each place agrees already.

    Places that do not agree (a replaced box, noise) lose their say, as in robust regression.

    Args:
        thetas: ``(batch, dims, dims + 1)`` to start from.
        query, candidate: ``(batch, 1, *spatial)`` of ``local_contrast``.
        affine: let all entries of the matrix move; otherwise rotation, zoom and shift.
        points: look at every so many pixels along each axis; by default at all of small images, every second of others.
    """
    shape = query.shape[2:]
    dims, count = len(shape), len(query)
    # One pixel in four, or one voxel in eight, is enough to say where to go: a thousand of them for six parameters.
    points = points or (2 if min(shape) >= LARGE[dims] else 1)
    every = 2 if points == 1 and min(shape) >= 32 else 1
    seen = (slice(None), slice(None), *(slice(points // 2, None, points) for _ in shape))
    # Slope along each coordinate (last axis first), per unit of half the longest axis.
    slopes = torch.stack(
        [torch.gradient(candidate[:, 0], dim=axis + 1)[0] * max(shape) / 2 for axis in reversed(range(dims))], dim=1
    )
    layers = torch.cat([candidate, slopes], dim=1)
    basis = _basis(dims, affine, query.device)
    mixing, units = basis.flatten(1), [shape[dims - 1 - row] / max(shape) for row in range(dims)]
    query = query[seen]
    kept, window = query.shape[2:], WINDOW / points
    energy = smooth(query * query, window, every)
    for _ in range(steps):
        places = coordinates(thetas, shape, points)
        warped = functional.grid_sample(layers, grid_of(places), padding_mode="zeros", align_corners=False)
        moved = warped[:, :1]
        products = query.new_empty(count, 2, *kept)
        torch.mul(query, moved, out=products[:, :1])
        torch.mul(moved, moved, out=products[:, 1:])
        together = smooth(products, window, every)
        agreement = together[:, :1] / torch.sqrt(energy * together[:, 1:] + 1e-6)
        weight = _spread(agreement.clamp(min=0.05) ** 2, kept, every)[:, 0] * within(places)
        slope = warped[:, 1:].flatten(2)  # (batch, dims, points)
        outer = query.new_empty(count, dims, dims, slope.shape[2])  # of slope and place
        for column, (one, unit) in enumerate(zip(places, units, strict=True)):
            torch.mul(slope, (one * unit).flatten(1).unsqueeze(1), out=outer[:, :, column])
        rows = query.new_empty(count, len(basis) + dims, slope.shape[2])  # (batch, parameters, points)
        rows[:, : len(basis)] = outer.flatten(1, 2) if affine else mixing @ outer.flatten(1, 2)
        rows[:, len(basis) :] = slope
        weighted = (rows * weight.flatten(1).unsqueeze(1)).transpose(1, 2)
        normal = rows @ weighted
        # A little of the diagonal keeps flat images from moving anywhere (Levenberg).
        normal = normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4)
        residual = (query - moved).reshape(count, 1, -1)
        change = torch.linalg.solve(normal, (residual @ weighted).transpose(1, 2))[:, :, 0]
        change = change.clamp(-MOST_PER_STEP, MOST_PER_STEP)
        step = torch.einsum("bk,kde->bde", change[:, :-dims], basis)
        linear = thetas[:, :, :-1] + step @ thetas[:, :, :-1]
        shift = thetas[:, :, -1:] + step @ thetas[:, :, -1:] + change[:, -dims:].unsqueeze(2)
        thetas = torch.cat([linear, shift], dim=2)
    return thetas


def _spread(values: Tensor, shape: torch.Size, every: int) -> Tensor:
    """Values at every so many pixels for all of them; weights are smooth, so that the nearest one will do."""
    if every == 1:
        return values
    for axis, length in enumerate(shape, start=2):
        values = values.repeat_interleave(every, dim=axis).narrow(axis, 0, min(length, every * values.shape[axis]))
        short = length - values.shape[axis]
        if short > 0:
            values = torch.cat([values, values.narrow(axis, values.shape[axis] - 1, 1)], dim=axis)
    return values
