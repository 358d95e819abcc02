# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates without a network: every query in many places, against all training images.

An embedding forgets what it was not trained to keep, and is only as good as its training. Two searches that need none
are the safety net under it. *Templates*: small band-passed versions of the query, turned, zoomed and shifted. *Shifts*:
half a small pixel off, the template of one chest is as near to a hundred others; so all shifts of the query, in three
sizes and, for 2D images, turned as well, are tried at twice the resolution.

Up to ``exact_up_to`` images (more on a graphics card) both searches look at all of them. In larger galleries templates
are compared by their principal components first, in very large ones by an inverted file, and only the best go on to
exact templates and to shifts.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.affine import kept_on, linear_transforms, resized, views
from monai_memo.registration.coarse import CoarseRegistration
from monai_memo.registration.filters import local_contrast, structured
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.inverted_file import InvertedFile, pays
from monai_memo.search.runner import Runner

LENGTH = {2: 16, 3: 10}
ROTATIONS = {2: (-20.0, -10.0, 0.0, 10.0, 20.0), 3: (-12.0, 0.0, 12.0)}
ZOOMS = (0.86, 1.0, 1.16)
SHIFTS = {2: (-2, -1, 0, 1, 2), 3: (-1, 0, 1)}  # small pixels
BAND = (0.6, 2.0, 3.0)
SHIFTED_ZOOMS = (0.87, 1.0, 1.14)
SHIFTED_ROTATIONS = {2: (-20.0, -10.0, 10.0, 20.0), 3: ()}  # degrees; three planes would cost more than they found
TEMPLATES, SHIFTED = 16, 8
EXACT_UP_TO, POOL, SHORTLIST, COMPONENTS = 2048, 2048, 256, 64
EXACT_ON_CARD = 65_536
PROBED, VOTED = 32, 100  # groups of an inverted file that each version of a query is compared with; images it names
COLUMNS, ON_CARD = 128, 4096  # training images that are correlated at once: what a processor keeps at hand; on a card


def _columns(runner: Runner) -> int:
    return ON_CARD if runner.waits else COLUMNS


def standard(features: Tensor, dim: int = 1) -> Tensor:
    """Rows of mean 0 and length 1, features flattened from ``dim`` on."""
    flat = features.flatten(dim)
    flat = flat - flat.mean(dim=-1, keepdim=True)
    return flat / flat.norm(dim=-1, keepdim=True).clamp(min=1e-6)


class Templates:
    """Small band-passed images, and a query's versions of them.

    Args:
        shape: spatial shape of the images.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.dims = len(shape)
        self.shape = tuple(min(length, LENGTH[self.dims]) for length in shape)
        self.linear = linear_transforms(self.dims, ROTATIONS[self.dims], ZOOMS)

    def features(self, images: Tensor, mask: Tensor) -> Tensor:
        """``(batch, 1, *spatial)`` to ``(batch, *small)``."""
        share = resized(mask, self.shape)
        small = resized(images * mask, self.shape) / share.clamp(min=1e-3)
        return local_contrast(small, (share > 0.5).to(images.dtype), *BAND)[:, 0]

    def versions(self, images: Tensor, mask: Tensor) -> Tensor:
        """``(batch, versions, values)``: each image turned, zoomed and shifted in every way."""
        dims, most = self.dims, max(SHIFTS[self.dims])
        turned = views(self.features(images, mask), kept_on(images.device, self.linear))
        padded = functional.pad(turned, [most] * (2 * dims))
        moved = []
        for shift in product(SHIFTS[dims], repeat=dims):
            window = tuple(
                slice(most + step, most + step + length) for step, length in zip(shift, self.shape, strict=True)
            )
            moved.append(padded[(slice(None), slice(None), *window)])
        return standard(torch.cat(moved, dim=1), 2)


class ShapeRetriever:
    """Templates and shifts.

    Args:
        templates: candidates by templates.
        shifted: candidates by shifts.
        exact_up_to: images up to which all are looked at by both searches; by default 2,048, on a card 65,536.
        pool: in larger galleries, images that shifts are tried on.
    """

    def __init__(
        self,
        templates: int = TEMPLATES,
        shifted: int = SHIFTED,
        exact_up_to: int | None = None,
        pool: int = POOL,
    ) -> None:
        self.templates, self.shifted, self.exact_up_to, self.pool = templates, shifted, exact_up_to, pool
        self.size, self.most = 0, EXACT_UP_TO if exact_up_to is None else exact_up_to

    @property
    def exact(self) -> bool:
        """Whether every training image is looked at by both searches."""
        return self.size <= self.most

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Small images, spectra and, for large galleries, principal components."""
        self.size, self.small = len(gallery), Templates(gallery.shape)
        if self.exact_up_to is None:
            self.most = EXACT_ON_CARD if runner.waits else EXACT_UP_TO
        self.coarse = CoarseRegistration(gallery.shape)
        dims = len(gallery.shape)
        turned = linear_transforms(dims, SHIFTED_ROTATIONS[dims], (1.0,)).unflatten(0, (2, -1))[
            :, 1:
        ]  # not upright again
        self.linear = torch.cat([linear_transforms(dims, (), SHIFTED_ZOOMS), turned.flatten(0, 1)])
        self.rows = coarse_rows(gallery, runner)
        found = []
        for rows in gallery.blocks(runner):
            images = grey(gallery.block(rows, runner))
            found.append(standard(self.small.features(images, torch.ones_like(images))))
        self.vectors = torch.cat(found)
        if self.exact:
            self.columns = [part.movedim(0, -1).contiguous() for part in self.rows.split(_columns(runner))]
            return
        covariance = sum(part.T @ part for part in self.vectors.split(65536))
        self.components = torch.linalg.eigh(covariance).eigenvectors[:, -COMPONENTS:].contiguous()
        sketches = self.vectors @ self.components
        self.file = InvertedFile(sketches, runner, products=True, probed=PROBED) if pays(self.size, runner) else None
        self.sketches = sketches.T.contiguous() if self.file is None else None

    def __call__(self, queries: Tensor, runner: Runner) -> Tensor:
        """``(batch, templates + shifted)`` candidates."""
        images = grey(queries)
        mask = structured(images)
        versions = self.small.versions(images, mask)
        features = self.coarse.features(images, mask)
        if self.exact:
            by_template = self._best(versions, self.vectors.T, runner).topk(min(self.templates, self.size)).indices
            by_shift = self._shifts(features, runner).topk(min(self.shifted, self.size)).indices
            return torch.cat([by_template, by_shift], dim=1)
        pool = self._sketched(versions @ self.components, runner).topk(min(self.pool, self.size)).indices
        short = pool[:, :SHORTLIST]
        scores = torch.stack([
            (one @ self.vectors[which].T).amax(dim=0) for one, which in zip(versions, short, strict=True)
        ])  # fmt: skip
        by_template = short.gather(1, scores.topk(min(self.templates, short.shape[1])).indices)
        peaks = torch.cat([
            self._peaks(self.coarse.kernels(one[None], self.linear), self.rows[which].movedim(0, -1), runner)
            for one, which in zip(features, pool, strict=True)
        ])  # fmt: skip
        by_shift = pool.gather(1, peaks.topk(min(self.shifted, pool.shape[1])).indices)
        return torch.cat([by_template, by_shift], dim=1)

    def _sketched(self, versions: Tensor, runner: Runner) -> Tensor:
        """``(batch, n)`` highest inner product of any version with each image's components.

        By an inverted file only for the images that a version names; all others come after them.
        """
        if self.file is None:
            assert self.sketches is not None
            return self._best(versions, self.sketches, runner)
        result = versions.new_full((len(versions), self.size), -torch.inf)
        products, places = self.file.nearest(versions.flatten(0, 1), min(VOTED, self.size))
        shape = (len(versions), -1)
        return result.scatter_reduce_(1, places.view(shape), products.view(shape), "amax")

    @staticmethod
    def _best(versions: Tensor, columns: Tensor, runner: Runner) -> Tensor:
        """``(batch, n)`` highest inner product of any version with each column, with a running maximum over blocks."""
        batch, count = versions.shape[:2]
        result = versions.new_empty(batch, columns.shape[1])
        together = batch if runner.waits else 1  # queries; a processor keeps one at hand
        step = runner.at_once(4 * count * together)
        for start in range(0, columns.shape[1], step):
            part = columns[:, start : start + step]
            for rows in runner.blocks(batch, together):
                product = versions[rows].flatten(0, 1) @ part
                result[rows, start : start + step] = product.unflatten(0, (-1, count)).amax(dim=1)
        return result

    def _shifts(self, features: Tensor, runner: Runner) -> Tensor:
        """``(batch, n)`` highest correlation with every image under any shift."""
        kernels = self.coarse.kernels(features, self.linear)
        each = 8 * kernels.shape[-2] * self.columns[0].shape[-1] * kernels[0, ..., 0, 0].numel()
        found = []
        for some in kernels.split(runner.at_once(each)):
            found.append(torch.cat([self._peaks(some, part, runner) for part in self.columns], dim=1))
        return torch.cat(found)

    def _peaks(self, kernels: Tensor, columns: Tensor, runner: Runner) -> Tensor:
        """``(batch, n)`` of ``_shifts`` for given columns."""
        peaks = []
        for part in columns.split(_columns(runner), dim=-1):
            correlation = self.coarse.correlation(kernels, part)
            while correlation.ndim > 2:
                correlation = correlation.amax(dim=1)
            peaks.append(correlation)
        return torch.cat(peaks, dim=1)


def coarse_rows(gallery: Gallery, runner: Runner) -> Tensor:
    """``CoarseRegistration.rows`` of a gallery: both retrieval and registration need them, so they are made once."""
    kept = gallery.derived.get("coarse rows")
    if kept is None or kept.device.type != runner.device.type:
        coarse = CoarseRegistration(gallery.shape)

        def make(block: Tensor) -> Tensor:
            images = grey(block)
            return coarse.rows(coarse.features(images, torch.ones_like(images)))

        kept = gallery.derived["coarse rows"] = gallery.derive("coarse rows", make, runner)
    return kept
