# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Coarse registration: every flip, rotation, zoom and shift of a query against its candidates, at small size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_memo.registration.affine import half_lengths, kept_on, linear_transforms, resized, views
from monai_memo.registration.correlation import ShiftCorrelation
from monai_memo.registration.filters import local_contrast

ROTATIONS = {2: (-20, -15, -10, -5, 0, 5, 10, 15, 20), 3: (-15, 0, 15)}  # degrees
ZOOMS = {2: (0.83, 0.91, 1.0, 1.1, 1.2), 3: (0.85, 1.0, 1.18)}
LARGEST_SHIFT = 0.16  # of the length
COARSE_LENGTH = {2: 32, 3: 16}


class CoarseRegistration:
    """Correlation of queries with their candidates under every coarse transform and shift.

    Args:
        shape: spatial shape of the images.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        dims = len(shape)
        self.full_shape = tuple(shape)
        self.shape = tuple(min(length, COARSE_LENGTH[dims]) for length in shape)
        self.correlation = ShiftCorrelation(self.shape, LARGEST_SHIFT)
        self.linear = linear_transforms(dims, ROTATIONS[dims], ZOOMS[dims])
        self.inverses = torch.linalg.inv(self.linear)

    def features(self, images: Tensor, mask: Tensor) -> Tensor:
        """``(batch, 1, *spatial)`` images to what is searched, ``(batch, *coarse)``."""
        share = resized(mask, self.shape)
        small = resized(images * mask, self.shape) / share.clamp(min=1e-3)
        return local_contrast(small, (share > 0.5).to(images.dtype), 0.7, 3.0, 4.0)[:, 0]

    def rows(self, features: Tensor) -> Tensor:
        """Candidates' features ``(batch, *coarse)`` as ``ShiftCorrelation`` takes them, one row each."""
        return self.correlation.rows(self.correlation.spectra(features))

    def kernels(self, features: Tensor, linear: Tensor) -> Tensor:
        """Queries' features ``(batch, *coarse)`` under linear transforms ``(v, dims, dims)``, see there."""
        turned = views(features, kept_on(features.device, linear))
        spectra = self.correlation.spectra(turned.flatten(0, 1))
        return self.correlation.kernels(spectra.unflatten(0, turned.shape[:2]))

    def __call__(self, features: Tensor, rows: Tensor, best: int) -> Tensor:
        """The best transforms of each pair.

        Args:
            features: ``(batch, *coarse)`` of the queries.
            rows: ``(batch, k, *frequencies)`` of the candidates of each query.
            best: transforms to return for each candidate.

        Returns:
            ``(batch, k, best, dims, dims + 1)``, highest correlation first.
        """
        best, dims = min(best, len(self.linear)), len(self.shape)
        columns = rows.movedim(1, -1)
        correlation = self.correlation(self.kernels(features, self.linear), columns)
        peak = correlation.movedim(-3, 1)  # (batch, v, s_d, ..., s_1, k)
        while peak.ndim > 3:
            peak = peak.amax(dim=2)
        which = peak.topk(best, dim=1).indices  # (batch, best, k)
        index = which.view(len(which), *(1,) * (dims - 1), best, 1, -1)
        index = index.expand(*correlation.shape[:dims], best, *correlation.shape[-2:])
        maps = correlation.gather(dims, index)  # (batch, s_d, ..., s_2, best, s_1, k)
        # To (batch, k, best, s_1, ..., s_d):
        maps = maps.permute(0, maps.ndim - 1, dims, dims + 1, *range(dims - 1, 0, -1))
        which = which.transpose(1, 2)
        inverse = kept_on(features.device, self.inverses)[which]
        return torch.cat([inverse, self._moves(maps.contiguous()).unsqueeze(-1)], dim=-1)

    def _moves(self, maps: Tensor) -> Tensor:
        """Place of the highest correlation, to a part of a pixel by a parabola along each axis.

        A view shows the query at M x, and the candidate at x + d looks like it: the candidate's place is M^-1 y + d.

        Args:
            maps: ``(batch, k, best, s_1, ..., s_d)``.

        Returns:
            ``(batch, k, best, dims)``, last axis first, in units of half the longest axis.
        """
        dims, flat = len(self.shape), maps.flatten(3)
        place = flat.argmax(dim=3, keepdim=True)
        unit = half_lengths(self.full_shape, maps.device)
        moves, stride = [], 1
        for order in range(dims):
            axis = dims - 1 - order
            offsets, count = kept_on(maps.device, self.correlation.offsets[axis]), maps.shape[3 + axis]
            along = (place // stride) % count
            before = flat.gather(3, torch.where(along > 0, place - stride, place))
            after = flat.gather(3, torch.where(along < count - 1, place + stride, place))
            peak = flat.gather(3, place)
            inner = (along > 0) & (along < count - 1)
            bend = (2 * peak - before - after).clamp(min=1e-6)
            part = torch.where(inner, ((after - before) / (2 * bend)).clamp(-0.5, 0.5), torch.zeros_like(peak))
            moves.append((offsets[along] + part) * (2 / self.shape[axis]) * unit[order])
            stride *= count
        return torch.cat(moves, dim=3)

    @property
    def bytes_per_pair(self) -> int:
        """Memory that one pair takes, roughly."""
        shifts = math.prod(len(offsets) for offsets in self.correlation.offsets)
        return 3 * 4 * len(self.linear) * shifts
