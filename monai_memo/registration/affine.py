# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Affine transforms of images: how they are written down, and how images are warped by them.

A transform (theta) says which point of the candidate (training image) lies at a point of the query (synthetic image):
an affine matrix ``(dims, dims + 1)`` on coordinates that count from the centre, in units of half the longest axis, in
the order of ``affine_grid`` (last axis first).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import combinations, product

import torch
from torch import Tensor
from torch.nn import functional

REACH_DEGREES, REACH_ZOOM, REACH_SHIFT = 26.0, 1.3, 0.4  # of transforms that are tried for every candidate


def half_lengths(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Half-length of each axis, last axis first, in units of half the longest axis."""
    return _half_lengths(tuple(shape), device)


@lru_cache(maxsize=64)
def _half_lengths(shape: tuple[int, ...], device: torch.device | None) -> Tensor:
    return torch.tensor([length / max(shape) for length in reversed(shape)]).to(device)


@lru_cache(maxsize=256)
def kept_on(device: torch.device, constant: Tensor) -> Tensor:
    """A tensor that nobody changes, brought to a device once: a card would wait for each copy."""
    return constant.to(device)


def identity(dims: int, device: torch.device | None = None) -> Tensor:
    """``(dims, dims + 1)``: the transform that leaves everything where it is."""
    return torch.eye(dims, dims + 1, device=device)


def coordinates(thetas: Tensor, shape: Sequence[int], every: int = 1) -> list[Tensor]:
    """Where each point of a query lies in its candidate: one tensor ``(batch, *kept)`` for each axis, last axis first.

    Each axis is measured from -1 to 1, as ``grid_sample`` does.

    Args:
        thetas: ``(batch, dims, dims + 1)``.
        shape: spatial shape of the images.
        every: only the points at every so many pixels, from ``every // 2`` on.
    """
    dims, longest = len(shape), max(shape)
    result = []
    for row in range(dims):
        # Lengths in units of the longest one: without them, oblong images would be sheared, not turned.
        own = longest / shape[dims - 1 - row]
        place = (thetas[:, row, dims] * own).view(-1, *(1,) * dims)
        for column in range(dims):
            axis = dims - 1 - column
            along = _positions(shape[axis], thetas.device)[every // 2 :: every] * (shape[axis] / longest * own)
            along = along.view([-1 if axis == other else 1 for other in range(dims)])
            place = place + thetas[:, row, column].view(-1, *(1,) * dims) * along
        result.append(place)
    return result


@lru_cache(maxsize=64)
def _positions(length: int, device: torch.device) -> Tensor:
    """Centres of pixels, from -1 to 1."""
    return (2 * torch.arange(length, dtype=torch.float32, device=device) + 1) / length - 1


def sampling_grid(thetas: Tensor, shape: Sequence[int]) -> Tensor:
    """``grid_sample``'s grid that brings candidates to their query, ``(batch, *shape, dims)``."""
    return grid_of(coordinates(thetas, shape))


def grid_of(places: Sequence[Tensor]) -> Tensor:
    """``coordinates`` side by side in the last axis."""
    grid = places[0].new_empty(*places[0].shape, len(places))  # stacking them takes far longer
    for number, place in enumerate(places):
        grid[..., number] = place
    return grid


def within(places: Sequence[Tensor]) -> Tensor:
    """``(batch, *shape)`` 1 where ``coordinates`` lie in the candidate, 0 elsewhere."""
    inside = places[0].abs() <= 1
    for place in places[1:]:
        inside = inside & (place.abs() <= 1)
    return inside.to(places[0].dtype)


def warp(images: Tensor, thetas: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates as they lie in their query.

    Args:
        images: ``(batch, channels, *spatial)``.
        thetas: ``(batch, dims, dims + 1)``.

    Returns:
        Warped images, and ``(batch, 1, *spatial)`` 1 where the candidate has pixels.
    """
    places = coordinates(thetas, images.shape[2:])
    grid = grid_of(places)
    warped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return warped, within(places).unsqueeze(1)


def resized(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Shrunk to ``shape`` by averaging: ``(batch, channels, *spatial)`` to ``(batch, channels, *shape)``."""
    if images.shape[2:] == tuple(shape):
        return images
    pool: Callable[[Tensor, tuple[int, ...]], Tensor] = (
        functional.adaptive_avg_pool2d if images.ndim == 4 else functional.adaptive_avg_pool3d  # type: ignore[assignment]
    )
    small = pool(images, tuple(shape))
    return small


@lru_cache(maxsize=64)
def mirror(dims: int, device: torch.device | None = None) -> Tensor:
    """``(dims, dims)`` mirror image: last axis in 2D (coordinate 0), first axis in 3D (coordinate 2)."""
    sides = torch.ones(dims)
    sides[0 if dims == 2 else 2] = -1
    return torch.diag(sides).to(device)


def within_reach(thetas: Tensor) -> Tensor:
    """Which transforms lie where every candidate is tried: turned, zoomed and moved a little, mirrored or not.

    Args:
        thetas: ``(..., dims, dims + 1)``.

    Returns:
        ``(...)`` bool.
    """
    linear, shift = thetas[..., :-1], thetas[..., -1]
    dims = linear.shape[-1]
    mirrored = torch.linalg.det(linear) < 0
    linear = torch.where(mirrored[..., None, None], linear @ mirror(dims, linear.device), linear)
    zoom = torch.linalg.det(linear).abs().clamp(min=1e-6) ** (1 / dims)
    trace = linear.diagonal(dim1=-2, dim2=-1).sum(dim=-1) / zoom
    cosine = trace / 2 if dims == 2 else (trace - 1) / 2
    turned = cosine < math.cos(math.radians(REACH_DEGREES))
    zoomed = (zoom < 1 / REACH_ZOOM) | (zoom > REACH_ZOOM)
    return ~(turned | zoomed | (shift.abs() > REACH_SHIFT).any(dim=-1))


@lru_cache(maxsize=8)
def linear_transforms(dims: int, degrees: tuple[float, ...], zooms: tuple[float, ...]) -> Tensor:
    """``(transforms, dims, dims)``: every flip, with every rotation in one plane (and none), with every zoom."""
    rotations = [torch.eye(dims)]  # stands there once for all planes
    for (first, second), angle in product(combinations(range(dims), 2), map(math.radians, degrees)):
        if angle:
            matrix = torch.eye(dims)
            matrix[first, first] = matrix[second, second] = math.cos(angle)
            matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
            rotations.append(matrix)
    flips = [torch.eye(dims), mirror(dims)]
    return torch.stack([turn @ side * zoom for side in flips for turn in rotations for zoom in zooms])


def views(images: Tensor, linear: Tensor) -> Tensor:
    """Each image under each linear transform, zero beyond its ends.

    Args:
        images: ``(batch, *spatial)``.
        linear: ``(v, dims, dims)``.

    Returns:
        ``(batch, v, *spatial)``.
    """
    count, dims = linear.shape[:2]
    shape = images.shape[1:]
    grid = sampling_grid(torch.cat([linear, linear.new_zeros(count, dims, 1)], dim=2), shape)
    # The images are the channels: one grid serves all of them.
    stacked = images.unsqueeze(0).expand(count, -1, *shape)
    return functional.grid_sample(stacked, grid, padding_mode="zeros", align_corners=False).transpose(0, 1)
