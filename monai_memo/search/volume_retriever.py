# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates for volumes that were turned, cropped, framed, reoriented or inverted, with the transform of each.

What keypoints are for pictures. Each query is looked at in some 1,800 ways (``volume_versions``) at 8 voxels along each
axis, and each way is compared with all training volumes in one matrix product. Margins need no way of their own: both
sides are looked at within the box that shows anything. Negatives are the most negative correlations. The best of each
family of ways are then registered at 16 voxels, and the best of these are candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.affine import coordinates, grid_of, half_lengths, resized, sampling_grid, within
from monai_memo.registration.filters import local_contrast, structured
from monai_memo.registration.gauss_newton import refine
from monai_memo.search.boxes import bounds, grown, unboxed
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.placed import Placed
from monai_memo.search.runner import Runner
from monai_memo.search.volume_versions import CROPPED, FAMILIES, versions

SMALL, LARGE = 8, 16  # voxels along each axis: of what is looked through, of what is registered
SMALL_BAND, LARGE_BAND = (0.6, 2.0, 3.0), (0.8, 3.0, 4.0)
COMPONENTS = 96  # principal ones of the 512 voxels, that volumes are looked through by; not for crops, which lose by it
POOL, KEPT = 10, (2, 3, 2, 2)  # of each family: volumes that are registered, candidates
SIMILAR_STEPS, AFFINE_STEPS = 4, 2
LEAST_VISIBLE = 0.1  # of a volume, so that its correlation says anything
FAINT = 1e-6
BEYOND = 3.0  # where nothing of a volume reaches
VISIBLE = 0.3  # share of a small voxel that has to show anything


@dataclass(frozen=True)
class Boxed:
    """Volumes within the box that shows anything.

    Attributes:
        images: ``(n, 1, 16, 16, 16)``.
        mask: ``(n, 1, 16, 16, 16)`` 1 where they show anything.
        centre, half: ``(n, 3)`` of the box, last axis first; volumes reach from -1 to 1.
    """

    images: Tensor
    mask: Tensor
    centre: Tensor
    half: Tensor

    @classmethod
    def of(cls, images: Tensor) -> Boxed:
        """Of ``(n, 1, *spatial)``."""
        # Resizing mixed the outermost voxels with the margins, but not so much that they would say nothing.
        mask = grown(structured(images))
        centre, half = bounds(mask)
        thetas = torch.cat([torch.diag_embed(half), centre[:, :, None]], dim=2)
        grid = sampling_grid(thetas, (2 * LARGE,) * 3)
        both = functional.grid_sample(
            torch.cat([images * mask, mask], dim=1), grid, padding_mode="border", align_corners=False
        )
        both = functional.avg_pool3d(both, 2)
        share = both[:, 1:]
        return cls(both[:, :1] / share.clamp(min=1e-3), (share > VISIBLE).to(images.dtype), centre, half)

    def detail(self, size: float = 1.0) -> Tensor:
        """``(n, 1, 16, 16, 16)`` what is registered.

        Args:
            size: of what they show, beside what they are registered with: the band is that of the other one.
        """
        return local_contrast(self.images, self.mask, *(size * one for one in LARGE_BAND))

    def features(self) -> Tensor:
        """``(n, 512)`` what is looked through, of training volumes."""
        small, mask = (resized(part, (SMALL,) * 3) for part in (self.images, self.mask))
        return local_contrast(small, (mask > VISIBLE).to(mask.dtype), *SMALL_BAND).flatten(1)


class VolumeRetriever:
    """Volumes in many ways, at small size.

    Args:
        pool: volumes that are registered for each family of ways.
    """

    def __init__(self, pool: int = POOL) -> None:
        self.pool = pool

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Small versions of the gallery.

        Raises:
            ValueError: the gallery holds pictures.
        """
        if len(gallery.shape) != 3:
            raise ValueError(f"these ways of looking are for volumes, got images of shape {gallery.shape}")
        self.size, device = len(gallery), runner.device
        self.unit = half_lengths(gallery.shape, device)
        ways = versions(gallery.shape)
        self.families = list(ways.families)
        self.sizes = [size for size, _ in ways.sizes]
        self.different = sorted(set(self.sizes))
        places = [self.different.index(size) for size, count in ways.sizes for _ in range(count)]
        self.of_way = torch.tensor(places).to(device)  # which of these each way has
        grid = sampling_grid(ways.thetas, (SMALL,) * 3)
        within_query = (grid.abs() <= 1).all(dim=-1, keepdim=True)
        grid = torch.where(within_query, grid, BEYOND).to(device)
        self.grids = grid.split([count for _, count in ways.sizes])
        inside = within_query.flatten(1).to(device=device, dtype=grid.dtype)
        linear = torch.linalg.inv(ways.thetas[:, :, :3])
        self.thetas = torch.cat([linear, -linear @ ways.thetas[:, :, 3:]], dim=2).to(device)

        def make(block: Tensor) -> Tensor:
            boxed = Boxed.of(grey(block))
            box = torch.cat([boxed.centre, boxed.half], dim=1)
            return torch.cat([boxed.features(), box, boxed.detail().flatten(1)], dim=1).half()

        packed = gallery.derive("small volumes", make, runner)
        values = SMALL**3
        self.columns = packed[:, :values].float().T.contiguous()
        self.boxes = packed[:, values : values + 6].float()
        self.details = packed[:, values + 6 :].unflatten(1, (1, LARGE, LARGE, LARGE))
        squares = self.columns.pow(2)
        self.norms = [
            (part @ squares.mean(dim=1, keepdim=True)).sqrt().clamp(min=FAINT) for part in inside.split(self.families)
        ]
        # A crop must not gain by lying where a volume is weak: its strength there is taken from each volume.
        crops = inside.split(self.families)[CROPPED]
        self.crop_norms = torch.cat(
            [(crops @ some).sqrt().clamp(min=FAINT).half() for some in squares.split(4096, dim=1)], dim=1
        )
        self.norms[CROPPED] = torch.ones_like(self.norms[CROPPED])
        self.components = torch.linalg.eigh(self.columns @ self.columns.T).eigenvectors[:, -COMPONENTS:].contiguous()
        self.sketches = self.components.T @ self.columns

    def __call__(self, queries: Tensor, runner: Runner) -> Tensor:
        """``(batch, candidates)``."""
        return self.placed(queries, runner).candidates

    def placed(self, queries: Tensor, runner: Runner) -> Placed:
        """Candidates with the transforms that bring them onto their queries.

        Args:
            queries: ``(batch, channels, *spatial)`` in [0, 1].
        """
        boxed = Boxed.of(grey(queries))
        which, way, negative = self._pool(boxed, runner)
        n, k = which.shape
        rows, mask = torch.arange(n, device=which.device)[:, None], boxed.mask.repeat_interleave(k, dim=0)
        query = torch.stack([boxed.detail(size) for size in self.different])[self.of_way[way], rows].flatten(0, 1)
        query = torch.where(negative.view(-1, 1, 1, 1, 1), -query, query)
        there = self.details[which.flatten()].float()
        thetas = self.thetas[way.flatten()]
        thetas = refine(thetas, query, there, steps=SIMILAR_STEPS, points=2)
        thetas = refine(thetas, query, there, steps=AFFINE_STEPS, affine=True, points=2)
        agreement = agreement_of(query, mask, there, thetas).view(n, k)
        return self._best(boxed, which, thetas.view(n, k, 3, 4), negative, agreement)

    def _pool(self, boxed: Boxed, runner: Runner) -> tuple[Tensor, Tensor, Tensor]:
        """Best volumes of each family, in which way, and whether black and white are exchanged: ``(n, k)`` each."""
        found = []
        count = min(self.pool, self.size)
        step = runner.at_once(4 * max(self.families))
        for row in range(len(boxed.images)):
            features = self._versions(boxed, row)
            strength = features.norm(dim=1, keepdim=True).clamp(min=FAINT) * torch.cat(self.norms)
            parts, first = [], 0
            for family, some in enumerate((features / strength).split(self.families)):
                if family == CROPPED:
                    best, way, sign = self._similar(some, self.columns, self.crop_norms, step)
                else:
                    best, way, sign = self._similar(some @ self.components, self.sketches, None, step)
                best = best.topk(count).indices
                parts.append(torch.stack([best, first + way[best], (sign[best] < 0).long()]))
                first += len(some)
            found.append(torch.cat(parts, dim=1))
        which, way, negative = torch.stack(found, dim=1)
        return which, way, negative > 0

    @staticmethod
    def _similar(features: Tensor, columns: Tensor, norms: Tensor | None, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each volume: how similar it is in the best way, which way that is, and the similarity with its sign."""
        found = []
        for first in range(0, columns.shape[1], step):
            similarity = features @ columns[:, first : first + step]
            if norms is not None:
                similarity = similarity / norms[:, first : first + step]
            best, way = similarity.abs().max(dim=0)
            found.append((best, way, similarity.gather(0, way[None])[0]))
        best, way, sign = (torch.cat(part) for part in zip(*found, strict=True))
        return best, way, sign

    def _versions(self, boxed: Boxed, row: int) -> Tensor:
        """``(versions, 512)`` of one query."""
        image, mask = boxed.images[row : row + 1], boxed.mask[row : row + 1]
        parts: list[Tensor] = []
        known: dict[float, Tensor] = {}
        for size, grid in zip(self.sizes, self.grids, strict=True):
            if size not in known:
                scale = size * LARGE / SMALL  # so that the band is that of the original's small version
                known[size] = local_contrast(image, mask, *(scale * one for one in SMALL_BAND))
            flat = grid.reshape(1, -1, *grid.shape[2:])
            seen = functional.grid_sample(known[size], flat, padding_mode="zeros", align_corners=False)
            parts.append(seen.view(len(grid), -1))
        return torch.cat(parts)

    def _best(self, boxed: Boxed, which: Tensor, thetas: Tensor, negative: Tensor, agreement: Tensor) -> Placed:
        """The best few of each family, each volume once."""
        n = len(which)
        rows = torch.arange(n, device=which.device)[:, None]
        pool = which.shape[1] // FAMILIES
        best = torch.cat([
            family * pool + some.topk(min(KEPT[family], pool), dim=1).indices
            for family, some in enumerate(agreement.split(pool, dim=1))
        ], dim=1)  # fmt: skip
        order = agreement.gather(1, best).argsort(dim=1, descending=True, stable=True)
        best = best.gather(1, order)
        candidates, votes = which.gather(1, best), agreement.gather(1, best)
        again = (candidates[:, :, None] == candidates[:, None, :]).tril(-1).any(dim=2)
        places = self._unboxed(thetas[rows, best], boxed, candidates)
        none = candidates.new_zeros(*candidates.shape, 0)
        return Placed(
            torch.where(again, -1, candidates), places, torch.where(again, 0.0, votes.clamp(min=0)),
            negative.gather(1, best), none[..., None].float().expand(*none.shape, 3), none.bool(),
        )  # fmt: skip

    def _unboxed(self, thetas: Tensor, boxed: Boxed, candidates: Tensor) -> Tensor:
        """Transforms from box to box as those from volume to volume."""
        centre, half = self.boxes[candidates].split(3, dim=2)
        return unboxed(thetas, (boxed.centre[:, None], boxed.half[:, None]), (centre, half), self.unit)


def agreement_of(query: Tensor, mask: Tensor, candidate: Tensor, thetas: Tensor) -> Tensor:
    """Correlation of placed pairs, less where little of them is visible.

    Args:
        query, mask, candidate: ``(pairs, 1, 16, 16, 16)``.
        thetas: ``(pairs, 3, 4)``.

    Returns:
        ``(pairs,)``.
    """
    places = coordinates(thetas, query.shape[2:])
    moved = functional.grid_sample(candidate, grid_of(places), padding_mode="zeros", align_corners=False)
    seen = within(places).unsqueeze(1) * mask
    products = [
        (seen * one * two).flatten(1).sum(dim=1) for one, two in ((query, moved), (query, query), (moved, moved))
    ]
    share = seen.flatten(1).mean(dim=1)
    correlation = products[0] / (products[1] * products[2]).sqrt().clamp(min=FAINT)
    return correlation * (share / LEAST_VISIBLE).clamp(max=1)
