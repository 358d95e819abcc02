# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Alignment of image pairs: a coarse search over flips, rotations, zooms and shifts, then Gauss-Newton steps.

A placement says which point of the candidate (training image) lies at a point of the query (synthetic image): an affine
matrix ``(dims, dims + 1)`` on coordinates that count from the centre, in units of half the longest axis, in the order
of ``affine_grid`` (last axis first).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.filters import band, smooth

ROTATIONS = {2: (-20, -15, -10, -5, 0, 5, 10, 15, 20), 3: (-15, 0, 15)}  # degrees
ZOOMS = {2: (0.83, 0.91, 1.0, 1.1, 1.2), 3: (0.85, 1.0, 1.18)}
LARGEST_SHIFT = 0.16  # of the length
COARSE_LENGTH = {2: 32, 3: 16}
BLOCK = 16  # candidates that are correlated at once: what a processor keeps at hand
MOST_PER_STEP = 0.12  # change of any parameter in one Gauss-Newton step


def _unit(shape: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Half-length of each axis, last axis first, in units of half the longest axis."""
    return torch.tensor([length / max(shape) for length in reversed(shape)], device=device)


def sampling_grid(placements: Tensor, shape: Sequence[int]) -> Tensor:
    """``grid_sample``'s grid that brings candidates to their query.

    Args:
        placements: ``(batch, dims, dims + 1)``.
        shape: spatial shape of the images.

    Returns:
        ``(batch, *shape, dims)``.
    """
    unit = _unit(shape, placements.device)
    # affine_grid measures each axis from -1 to 1: without the units, oblong images would be sheared, not turned.
    theta = placements / unit.view(1, -1, 1)
    theta = torch.cat([theta[:, :, :-1] * unit.view(1, 1, -1), theta[:, :, -1:]], dim=2)
    return functional.affine_grid(theta, [len(placements), 1, *shape], align_corners=False)


def warp(images: Tensor, placements: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates as they lie in their query.

    Args:
        images: ``(batch, channels, *spatial)``.
        placements: ``(batch, dims, dims + 1)``.

    Returns:
        Warped images, and ``(batch, 1, *spatial)`` 1 where the candidate has pixels.
    """
    grid = sampling_grid(placements, images.shape[2:])
    inside = (grid.abs() <= 1).all(dim=-1).unsqueeze(1).to(images.dtype)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False), inside


def resized(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Shrunk to ``shape`` by averaging: ``(batch, channels, *spatial)`` to ``(batch, channels, *shape)``."""
    pool: Any = functional.adaptive_avg_pool2d if images.ndim == 4 else functional.adaptive_avg_pool3d
    small: Tensor = pool(images, tuple(shape))
    return small


def local_contrast(images: Tensor, mask: Tensor, low: float, high: float, window: float) -> Tensor:
    """One band, divided by its local strength: the same for any brightness curve, what alignment looks at."""
    detail = band(images, mask, low, high)
    strength = smooth(detail**2, window) / smooth(mask, window).clamp(min=1e-3)
    return detail / torch.sqrt(strength + 4e-3**2)


def mirror(dims: int) -> Tensor:
    """``(dims, dims)`` mirror image: last axis in 2D (coordinate 0), first axis in 3D (coordinate 2)."""
    sides = torch.ones(dims)
    sides[0 if dims == 2 else 2] = -1
    return torch.diag(sides)


@lru_cache(maxsize=8)
def transforms(dims: int, degrees: tuple[float, ...], zooms: tuple[float, ...]) -> Tensor:
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


class CoarseSearch:
    """Correlation of a query with its candidates under every coarse transform and shift (by FFT).

    Args:
        shape: spatial shape of the images.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        dims = len(shape)
        self.full_shape = tuple(shape)
        self.shape = tuple(min(length, COARSE_LENGTH[dims]) for length in shape)
        self.transforms = transforms(dims, ROTATIONS[dims], ZOOMS[dims])
        self.inverses = torch.linalg.inv(self.transforms)
        self.taper = torch.ones(self.shape)
        for axis, length in enumerate(self.shape):
            position = (torch.arange(length) + 0.5) * 2 / length - 1
            self.taper = self.taper * (1 - position.abs() ** 6).view(
                [length if axis == other else 1 for other in range(dims)]
            )
        self.axes = tuple(range(-dims, 0))

    def features(self, images: Tensor, mask: Tensor) -> Tensor:
        """``(batch, 1, *spatial)`` images to what is searched, ``(batch, *coarse)``."""
        small = resized(images * mask, self.shape) / resized(mask, self.shape).clamp(min=1e-3)
        kept = (resized(mask, self.shape) > 0.5).to(images.dtype)
        return local_contrast(small, kept, 0.7, 3.0, 4.0)[:, 0]

    def views(self, features: Tensor, transforms: Tensor) -> Tensor:
        """Features ``(*coarse)`` under transforms ``(v, dims, dims)``: ``(v, *coarse)``."""
        count, dims = transforms.shape[:2]
        grid = sampling_grid(torch.cat([transforms, torch.zeros(count, dims, 1)], dim=2), self.shape)
        return functional.grid_sample(
            features.expand(count, 1, *self.shape), grid, padding_mode="zeros", align_corners=False
        )[:, 0]

    def spectra(self, features: Tensor) -> Tensor:
        """Fourier transforms of features ``(batch, *coarse)``, tapered, of mean 0 and length 1."""
        tapered = features * self.taper
        tapered = tapered - tapered.mean(dim=self.axes, keepdim=True)
        standard = tapered / tapered.pow(2).sum(dim=self.axes, keepdim=True).sqrt().clamp(min=1e-6)
        spectra: Tensor = torch.fft.rfftn(standard, dim=self.axes)
        return spectra

    def correlation(self, views: Tensor, others: Tensor) -> Tensor:
        """Correlation of every view with every other image under every circular shift.

        Args:
            views, others: ``spectra`` of ``v`` and ``k`` images.

        Returns:
            ``(k, v, *coarse)``.
        """
        products = others.unsqueeze(1) * views.conj().unsqueeze(0)
        correlation: Tensor = torch.fft.irfftn(products, s=self.shape, dim=self.axes)
        return correlation

    def within_reach(self, correlation: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Only shifts up to ``LARGEST_SHIFT``, and those of each axis in coarse pixels."""
        offsets = []
        for axis, length in enumerate(self.shape):
            most = round(LARGEST_SHIFT * length)
            offsets.append(torch.arange(-most, most + 1))
            correlation = correlation.index_select(2 + axis, offsets[-1] % length)
        return correlation, offsets

    def __call__(self, query: Tensor, candidates: Tensor, best: int) -> tuple[Tensor, Tensor]:
        """Search one query.

        Args:
            query: ``(*coarse)`` features.
            candidates: ``(k, *coarse)`` features.
            best: placements to return for each candidate.

        Returns:
            correlation ``(k, best)``, highest first; placements ``(k, best, dims, dims + 1)``.
        """
        spectra = self.spectra(self.views(query, self.transforms))
        best = min(best, len(self.transforms))
        found = [self._places(spectra, block, best) for block in candidates.split(BLOCK)]
        value, placements = (torch.cat(parts) for parts in zip(*found, strict=True))
        return value, placements

    def _places(self, views: Tensor, candidates: Tensor, best: int) -> tuple[Tensor, Tensor]:
        """``__call__`` for the ``spectra`` of all views and a block of candidates."""
        correlation = self.correlation(views, self.spectra(candidates))
        within, offsets = self.within_reach(correlation)
        peak, place = within.flatten(2).max(dim=2)
        value, which = peak.topk(best, dim=1)
        place = place.gather(1, which)
        shifts = []
        for offset in reversed(offsets):
            shifts.append(offset[place % len(offset)])
            place = place // len(offset)
        chosen = correlation[torch.arange(len(correlation)).unsqueeze(1), which]
        shifts = self._between_pixels(chosen, shifts)
        # A view shows the query at M x, and the candidate at x + d looks like it: the candidate's place is M^-1 y + d.
        inverse = self.inverses[which]
        unit = _unit(self.full_shape)
        moves = torch.stack([2 * shift / length * unit[axis] for axis, (shift, length) in
                             enumerate(zip(shifts, reversed(self.shape), strict=True))], dim=2)  # fmt: skip
        return value, torch.cat([inverse, moves.unsqueeze(3)], dim=3)

    def _between_pixels(self, correlation: Tensor, shifts: Sequence[Tensor]) -> list[Tensor]:
        """Peaks to a part of a pixel, by a parabola along each axis.

        Args:
            correlation: ``(k, best, *coarse)``.
            shifts: for each axis, last first, ``(k, best)`` whole pixels.
        """
        flat, found = correlation.flatten(2), []
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]

        def at(moved: int, step: int) -> Tensor:
            """Correlation a step beside the peak along the axis that is ``moved``th from the last."""
            place = torch.zeros_like(shifts[0])
            for order, shift in enumerate(shifts):
                axis = len(self.shape) - 1 - order
                place = place + (shift + (step if order == moved else 0)) % self.shape[axis] * strides[axis]
            return flat.gather(2, place.unsqueeze(2))[:, :, 0]

        for order, shift in enumerate(shifts):
            before, peak, after = at(order, -1), at(order, 0), at(order, 1)
            bend = (2 * peak - before - after).clamp(min=1e-6)
            found.append(shift + ((after - before) / (2 * bend)).clamp(-0.5, 0.5))
        return found


def _basis(dims: int, affine: bool) -> Tensor:
    """``(parameters, dims, dims)`` directions in which a placement may move besides shifts."""
    if affine:
        return torch.eye(dims * dims).view(-1, dims, dims)
    directions = [torch.eye(dims)]
    for first, second in combinations(range(dims), 2):
        turn = torch.zeros(dims, dims)
        turn[first, second], turn[second, first] = -1.0, 1.0
        directions.append(turn)
    return torch.stack(directions)


def refine(placements: Tensor, query: Tensor, candidate: Tensor, steps: int = 8, affine: bool = False) -> Tensor:
    """Gauss-Newton steps on the difference of ``local_contrast``, weighted by how well each place agrees already.

    Places that do not agree (a replaced box, noise) lose their say, as in robust regression.

    Args:
        placements: ``(batch, dims, dims + 1)`` to start from.
        query, candidate: ``(batch, 1, *spatial)`` of ``local_contrast``.
        affine: let all entries of the matrix move; otherwise rotation, zoom and shift.
    """
    shape = query.shape[2:]
    dims, count = len(shape), len(query)
    unit = _unit(shape, query.device)
    # Slope along each coordinate (last axis first), per unit of half the longest axis.
    slopes = torch.stack(
        [torch.gradient(candidate[:, 0], dim=axis + 1)[0] * max(shape) / 2 for axis in reversed(range(dims))], dim=1
    )
    layers = torch.cat([candidate, slopes], dim=1)
    basis = _basis(dims, affine).to(query.device)
    for _ in range(steps):
        grid = sampling_grid(placements, shape)
        warped = functional.grid_sample(layers, grid, padding_mode="zeros", align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1).to(query.dtype)
        moved = warped[:, :1]
        together = smooth(torch.cat([query * moved, query**2, moved**2], dim=1), 4.0)
        agreement = together[:, :1] / torch.sqrt(together[:, 1:2] * together[:, 2:] + 1e-6)
        weight = (agreement[:, 0].clamp(min=0.05) ** 2 * inside).reshape(count, -1, 1)
        slope = warped[:, 1:].reshape(count, dims, -1)
        place = grid.reshape(count, -1, dims) * unit
        columns = torch.einsum("bdp,kde,bpe->bpk", slope, basis, place)
        columns = torch.cat([columns, slope.transpose(1, 2)], dim=2)
        weighted = columns * weight
        normal = columns.transpose(1, 2) @ weighted
        # A little of the diagonal keeps flat images from moving anywhere (Levenberg).
        normal = normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=1, dim2=2) + 1e-4)
        residual = (query - moved).reshape(count, -1, 1)
        change = torch.linalg.solve(normal, weighted.transpose(1, 2) @ residual)[:, :, 0]
        change = change.clamp(-MOST_PER_STEP, MOST_PER_STEP)
        step = torch.einsum("bk,kde->bde", change[:, :-dims], basis)
        linear = placements[:, :, :-1] + step @ placements[:, :, :-1]
        shift = placements[:, :, -1:] + step @ placements[:, :, -1:] + change[:, -dims:].unsqueeze(2)
        placements = torch.cat([linear, shift], dim=2)
    return placements
