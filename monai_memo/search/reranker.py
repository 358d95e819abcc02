# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Is one of the candidates the very image, once it is aligned?

Retrieval finds the right image nearly always, but its similarity says little about whether that image is a copy or
another patient who looks alike. So the candidates of each query are registered with it and compared locally, band by
band. The similarity is the correlation in the best two fifths of all windows, over all bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.affine import identity
from monai_memo.registration.coarse import CoarseRegistration
from monai_memo.registration.filters import local_contrast, octaves, structured
from monai_memo.registration.gauss_newton import refine
from monai_memo.registration.lncc import combine, matched_blur, profiles_of
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.matches import NOT_SCORED
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import coarse_rows

REFINED = 5
CONTRAST_BAND = (1.0, 4.0, 5.0)  # of the images that are registered; in pixels: low, high, window
SECOND = 16  # candidates whose second best coarse transform is tried as well
ABOVE_ALL = 2.0  # more than any agreement
CHANNELS = 16  # tensors of the size of an image that a comparison holds at once


@dataclass(frozen=True)
class Pairs:
    """Queries and candidates side by side.

    Attributes:
        query, structure, candidate: ``(pairs, 1, *spatial)``, see ``registration.lncc``.
        thetas: ``(pairs, dims, dims + 1)``.
    """

    query: Tensor
    structure: Tensor
    candidate: Tensor
    thetas: Tensor


class RegisteredReranker:
    """Registers candidates and scores them by local normalised cross-correlation.

    Args:
        refined: candidates of each query that are registered to the pixel; the others are dropped after a coarse look.
        affine: let registration end with all entries of the matrix free, for images that were squeezed.
    """

    def __init__(self, refined: int = REFINED, affine: bool = True) -> None:
        if refined < 1:
            raise ValueError(f"refined must be at least 1, got {refined}")
        self.refined, self.affine = refined, affine

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Spectra of the gallery; its images come to the device if they fit there."""
        self.gallery, self.shape = gallery, gallery.shape
        self.coarse = CoarseRegistration(gallery.shape)
        self.spectra = coarse_rows(gallery, runner)
        self.bands = len(octaves(gallery.shape))
        gallery.reside(runner)

    def __call__(self, queries: Tensor, candidates: Tensor, kept: Tensor | None, runner: Runner) -> ScoredBlock:
        """See ``protocols.Reranker``."""
        images = grey(queries)
        structure = structured(images)
        thetas = self._coarse(images, structure, candidates, runner)
        chosen, thetas = self._shortlist(images, structure, candidates, thetas, kept, runner)
        n, r = chosen.shape
        others = self.gallery.images(chosen.clamp(min=0).flatten(), runner)
        pairs = Pairs(
            images.repeat_interleave(r, dim=0), structure.repeat_interleave(r, dim=0), others, thetas.flatten(0, 1)
        )
        thetas = self._refined(pairs, runner)
        profiles, thetas = self._better(pairs, thetas, runner)
        profiles = self._blurred(pairs, thetas, profiles, chosen, runner)
        similarity = torch.where(chosen < 0, -ABOVE_ALL, combine(profiles).view(n, r))
        order = similarity.argsort(dim=1, descending=True, stable=True)
        return ScoredBlock.of(
            chosen.gather(1, order),
            similarity.gather(1, order).double(),
            thetas.view(n, r, *thetas.shape[1:])[torch.arange(n, device=order.device)[:, None], order],
            profiles.view(n, r, -1)[torch.arange(n, device=order.device)[:, None], order],
            self.refined,
        )

    def _coarse(self, images: Tensor, structure: Tensor, candidates: Tensor, runner: Runner) -> Tensor:
        """``(n, k, 3, dims, dims + 1)``: the two best coarse transforms, and the one that leaves all in place.

        Most copies lie where their original lies; with a quarter replaced, the coarse search can miss that.
        """
        features, found = self.coarse.features(images, structure), []
        which = candidates.clamp(min=0)
        step = runner.at_once(self.coarse.bytes_per_pair * candidates.shape[1])
        for some, rows in zip(features.split(step), which.split(step), strict=True):
            found.append(self.coarse(some, self.spectra[rows], 2))
        thetas = torch.cat(found)
        dims = len(self.shape)
        in_place = identity(dims, thetas.device).expand(*thetas.shape[:2], 1, dims, dims + 1)
        return torch.cat([thetas, in_place], dim=2)

    def _shortlist(
        self,
        images: Tensor,
        structure: Tensor,
        candidates: Tensor,
        thetas: Tensor,
        kept: Tensor | None,
        runner: Runner,
    ) -> tuple[Tensor, Tensor]:
        """The candidates that agree best at half the size, each at the best of its coarse transforms.

        Correlation over the whole image would drop copies of which a part was replaced. The second best transform is
        tried on the candidates that agree best at the first one or in place.

        Returns:
            ``(n, r)`` and ``(n, r, dims, dims + 1)``; -1 where there are fewer candidates.
        """
        n, k = candidates.shape
        rows = torch.arange(n, device=candidates.device)[:, None]
        look = Look(self.gallery, images, runner)
        others = look.candidates(candidates)
        values = look.agreement(others, torch.arange(n * k, device=rows.device).view(n, k), thetas[:, :, ::2])
        first = torch.where(candidates < 0, -ABOVE_ALL, values.amax(dim=2))
        again = first.topk(min(SECOND, k), dim=1).indices
        value = look.agreement(others, again + k * rows, thetas[rows, again, 1:2])
        second = torch.full_like(first, -ABOVE_ALL).scatter(1, again, value[:, :, 0])
        value, place = torch.stack([values[:, :, 0], second, values[:, :, 1]], dim=2).max(dim=2)
        if kept is not None:
            value = torch.where(candidates == kept[:, None], value + ABOVE_ALL, value)
        value = torch.where(candidates < 0, -ABOVE_ALL, value)
        best = value.topk(min(self.refined, k), dim=1).indices
        return candidates.gather(1, best), thetas[rows, best, place.gather(1, best)]

    def _parts(self, pairs: Pairs, runner: Runner) -> list[slice]:
        size = runner.at_once(4 * CHANNELS * pairs.query[0].numel())
        return list(runner.blocks(len(pairs.query), size))

    def _refined(self, pairs: Pairs, runner: Runner) -> Tensor:
        found = []
        for rows in self._parts(pairs, runner):
            first = local_contrast(pairs.query[rows], pairs.structure[rows], *CONTRAST_BAND)
            candidate = pairs.candidate[rows]
            second = local_contrast(candidate, torch.ones_like(candidate), *CONTRAST_BAND)
            thetas = refine(pairs.thetas[rows], first, second, steps=6)
            if self.affine:
                thetas = refine(thetas, first, second, steps=3, affine=True)
            found.append(thetas)
        return torch.cat(found)

    def _profiles(self, pairs: Pairs, thetas: Tensor, runner: Runner, blur: Tensor | None = None) -> Tensor:
        return torch.cat([
            profiles_of(
                pairs.query[rows], pairs.structure[rows], pairs.candidate[rows], thetas[rows],
                0.0 if blur is None else blur[rows],
            )
            for rows in self._parts(pairs, runner)
        ])  # fmt: skip

    def _better(self, pairs: Pairs, refined: Tensor, runner: Runner) -> tuple[Tensor, Tensor]:
        """Profile and transform of each pair, registered or left in place, whichever agrees more.

        A quarter of the image that was replaced can draw a copy away that had lain where its original lies.
        """
        in_place = identity(len(self.shape), refined.device).expand_as(refined)
        moved, still = self._profiles(pairs, refined, runner), self._profiles(pairs, in_place, runner)
        stays = (combine(still) > combine(moved)).unsqueeze(1)
        return torch.where(stays, still, moved), torch.where(stays.unsqueeze(2), in_place, refined)

    def _blurred(self, pairs: Pairs, thetas: Tensor, profiles: Tensor, chosen: Tensor, runner: Runner) -> Tensor:
        """Profiles with candidates as blurred as the query, which is read off its likeliest candidate."""
        n, r = chosen.shape
        sharp = torch.where(chosen < 0, -ABOVE_ALL, combine(profiles).view(n, r))
        likeliest = sharp.argmax(dim=1) + r * torch.arange(n, device=chosen.device)
        one = Pairs(*(part[likeliest] for part in (pairs.query, pairs.structure, pairs.candidate, thetas)))
        blur = torch.cat([
            matched_blur(one.query[rows], one.structure[rows], one.candidate[rows], one.thetas[rows], some)
            for rows, some in ((rows, sharp.flatten()[likeliest][rows]) for rows in self._parts(one, runner))
        ])  # fmt: skip
        blur = blur.repeat_interleave(r)
        if runner.waits:
            again = self._profiles(pairs, thetas, runner, blur)
            return torch.where(blur[:, None] > 0, again, profiles)
        soft = torch.nonzero(blur)[:, 0]
        if len(soft):
            some = Pairs(*(part[soft] for part in (pairs.query, pairs.structure, pairs.candidate, thetas)))
            profiles = profiles.index_copy(0, soft, self._profiles(some, some.thetas, runner, blur[soft]))
        return profiles


class Look:
    """Agreement of queries with candidates at half the size.

    Args:
        images: ``(n, 1, *spatial)`` queries in grey.
    """

    def __init__(self, gallery: Gallery, images: Tensor, runner: Runner) -> None:
        self.gallery, self.runner = gallery, runner
        self.images = self._small(images)
        self.structure = structured(self.images)

    @staticmethod
    def _small(images: Tensor) -> Tensor:
        if min(images.shape[2:]) < 32:
            return images
        pool = functional.avg_pool2d if images.ndim == 4 else functional.avg_pool3d
        small: Tensor = pool(images, 2)  # type: ignore[operator]
        return small

    def candidates(self, which: Tensor) -> Tensor:
        """``(n * k, 1, *small)`` images of ``(n, k)`` candidates."""
        flat, pixels = which.clamp(min=0).flatten(), self.images[0].numel()
        parts = flat.split(self.runner.at_once(4 * 2**self.images.ndim * pixels))
        return torch.cat([self._small(self.gallery.images(part, self.runner)) for part in parts])

    def agreement(self, others: Tensor, which: Tensor, thetas: Tensor) -> Tensor:
        """Combined agreement of pairs under several transforms.

        Args:
            others: of ``candidates``.
            which: ``(n, m)`` places in ``others``.
            thetas: ``(n, m, t, dims, dims + 1)``.

        Returns:
            ``(n, m, t)``.
        """
        m, per_candidate = thetas.shape[1:3]
        flat, places = which.flatten(), thetas.flatten(0, 2)
        step = self.runner.at_once(4 * CHANNELS * self.images[0].numel())
        values = []
        for start in range(0, len(places), step):
            pair = torch.arange(start, min(start + step, len(places)), device=flat.device)
            row = pair // (m * per_candidate)
            candidate = others[flat[pair // per_candidate]]
            profiles = profiles_of(self.images[row], self.structure[row], candidate, places[pair])
            values.append(combine(profiles))
        return torch.cat(values).view(*thetas.shape[:3])


@dataclass(frozen=True)
class ScoredBlock:
    """See ``protocols.Scored``."""

    candidates: Tensor
    similarity: Tensor
    transforms: Tensor
    profiles: Tensor

    @classmethod
    def of(
        cls, candidates: Tensor, similarity: Tensor, transforms: Tensor, profiles: Tensor, refined: int
    ) -> ScoredBlock:
        """Filled up to ``refined`` candidates; those that are none get no score."""
        none = candidates < 0
        similarity = torch.where(none, NOT_SCORED, similarity)
        transforms = torch.where(none[..., None, None], 0, transforms)
        profiles = torch.where(none[..., None], 0, profiles)
        short = refined - candidates.shape[1]
        return cls(
            functional.pad(candidates, (0, short), value=-1),
            functional.pad(similarity, (0, short), value=NOT_SCORED),
            functional.pad(transforms, (0, 0, 0, 0, 0, short)),
            functional.pad(profiles, (0, 0, 0, short)),
        )
