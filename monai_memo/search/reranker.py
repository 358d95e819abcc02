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

from monai_memo.registration.affine import half_lengths, identity
from monai_memo.registration.coarse import CoarseRegistration
from monai_memo.registration.filters import local_contrast, octaves, structured
from monai_memo.registration.gauss_newton import refine
from monai_memo.registration.lncc import combine, matched_blur, profiles_of
from monai_memo.search.boxes import bounds, grown, unboxed
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.matches import NOT_SCORED
from monai_memo.search.placed import Placed
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import coarse_rows

REFINED = 5
CONTRAST_BAND = (1.0, 4.0, 5.0)  # of the images that are registered; in pixels: low, high, window
SECOND = 16  # candidates whose second best coarse transform is tried as well
ABOVE_ALL = 2.0  # more than any agreement
KNOWN = 3  # place of a retriever's transform among those of a candidate
ALIKE = 8  # candidates that are looked at where the likeliest one lies, by keypoints
FRAMED = 0.9  # of an axis: an image that shows something in less of it stands between margins
CHANNELS = 16  # tensors of the size of an image that a comparison holds at once


@dataclass(frozen=True)
class Pairs:
    """Queries and candidates side by side.

    Attributes:
        query, structure, candidate: ``(pairs, 1, *spatial)``, see ``registration.lncc``.
        thetas: ``(pairs, dims, dims + 1)`` where registration begins.
        fallback: ``(pairs, dims, dims + 1)`` what is compared with where it ends.
    """

    query: Tensor
    structure: Tensor
    candidate: Tensor
    thetas: Tensor
    fallback: Tensor

    def some(self, rows: Tensor, thetas: Tensor) -> Pairs:
        """Some of the pairs, at other transforms."""
        parts = (self.query, self.structure, self.candidate, thetas, self.fallback)
        return Pairs(*(part[rows] for part in parts))


@dataclass(frozen=True)
class Shortlist:
    """Candidates of ``n`` queries that are registered.

    Attributes:
        candidates: ``(n, r)``, -1 where there are fewer.
        thetas: ``(n, r, dims, dims + 1)`` where registration begins.
        fallback: ``(n, r, dims, dims + 1)`` what is compared with where it ends.
        inverted: ``(n, r)`` whether the query is compared with black and white exchanged.
    """

    candidates: Tensor
    thetas: Tensor
    fallback: Tensor
    inverted: Tensor


class RegisteredReranker:
    """Registers candidates and scores them by local normalised cross-correlation.

    Args:
        refined: candidates of each query that are registered to the pixel; the others are dropped after a coarse look.
        affine: let registration end with all entries of the matrix free, for images that were squeezed.
    """

    takes_places = True

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
        if len(gallery.shape) == 2:  # volumes between margins are looked for, and placed, by a retriever of their own
            self.boxes = gallery.derive(
                "boxes", lambda block: torch.cat(bounds(grown(structured(grey(block)))), dim=1), runner
            )
        gallery.reside(runner)

    def __call__(
        self,
        queries: Tensor,
        candidates: Tensor,
        kept: Tensor | None,
        runner: Runner,
        placed: Placed | None = None,
    ) -> ScoredBlock:
        """See ``protocols.Reranker``.

        Args:
            kept: ``(batch,)`` or ``(batch, m)``.
            placed: where some of the candidates lie, as far as retrievers know.
        """
        images = grey(queries)
        structure = structured(images)
        thetas = self._coarse(images, structure, candidates, runner)
        short = self._shortlist(images, structure, candidates, thetas, kept, placed, runner)
        chosen = short.candidates
        n, r = chosen.shape
        others = self.gallery.images(chosen.clamp(min=0).flatten(), runner)
        pairs = Pairs(
            inverted(images.repeat_interleave(r, dim=0), short.inverted.flatten()),
            structure.repeat_interleave(r, dim=0), others, short.thetas.flatten(0, 1), short.fallback.flatten(0, 1),
        )  # fmt: skip
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
            short.inverted.gather(1, order),
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
        placed: Placed | None,
        runner: Runner,
    ) -> Shortlist:
        """The candidates that agree best at half the size, each at the best of its coarse transforms.

        Correlation over the whole image would drop copies of which a part was replaced. The second best transform is
        tried on the candidates that agree best at the first one or in place; where a retriever knows a transform, that
        one as well, and of a query between margins all candidates within these.
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
        every, turned = [values[:, :, 0], second, values[:, :, 1]], torch.zeros_like(candidates, dtype=torch.bool)
        favourite = None
        if placed is not None:
            place, there = placed.among(candidates)
            value = look.agreement(others, place + k * rows, placed.transforms[:, :, None], placed.inverted)[:, :, 0]
            value = torch.where(there, value, -ABOVE_ALL)
            # Those that are not there all point to the first candidate: they must not overwrite what stands there.
            third = torch.full_like(first, -ABOVE_ALL).scatter_reduce(1, place, value, "amax")
            start = torch.zeros_like(thetas[:, :, :1])
            spread = there[:, :, None, None] * placed.transforms
            start[:, :, 0] = torch.zeros_like(start[:, :, 0]).scatter_add(
                1, place[:, :, None, None].expand_as(spread), spread
            )
            turned = torch.zeros_like(first).scatter_add(1, place, (there & placed.inverted).to(first.dtype)) > 0
            every, thetas = [*every, third], torch.cat([thetas, start], dim=2)
            votes = torch.where(there, placed.votes, -1.0)
            best = votes.argmax(dim=1, keepdim=True)
            none = votes.gather(1, best) <= 0
            favourite = torch.where(none, -1, place.gather(1, best))
            # Others are looked at where the favourite lies: what is said for it must not be said of any patient there.
            there = again[:, :ALIKE]
            start = placed.transforms[rows, best].expand(-1, there.shape[1], -1, -1)
            flipped = placed.inverted.gather(1, best)
            value = look.agreement(others, there + k * rows, start[:, :, None], flipped.expand_as(there))[:, :, 0]
            value = torch.where(none, -ABOVE_ALL, value)
            every.append(torch.full_like(first, -ABOVE_ALL).scatter(1, there, value))
            thetas = torch.cat([thetas, start[:, :1, None].expand(-1, k, -1, -1, -1)], dim=2)
        if len(self.shape) == 2:
            value, starts = self._boxed(look, structure, others, candidates)
            every, thetas = [*every, value], torch.cat([thetas, starts[:, :, None]], dim=2)
        value, place = torch.stack(every, dim=2).max(dim=2)
        if kept is not None:
            stays = (candidates[:, :, None] == kept.view(n, 1, -1)).any(dim=2)
            value = torch.where(stays, value + ABOVE_ALL, value)
        if favourite is not None:
            columns = torch.arange(k, device=rows.device)[None]
            value = torch.where(columns == favourite, value + ABOVE_ALL, value)
        value = torch.where(candidates < 0, -2 * ABOVE_ALL, value)
        best = value.topk(min(self.refined, k), dim=1).indices
        chosen = place.gather(1, best)
        begin = thetas[rows, best, chosen]
        stay = torch.where((chosen >= KNOWN)[:, :, None, None], begin, thetas[rows, best, 2])
        exchanged = (chosen == KNOWN) & turned.gather(1, best)
        if placed is not None:
            exchanged = exchanged | ((chosen == KNOWN + 1) & flipped)
        return Shortlist(candidates.gather(1, best), begin, stay, exchanged)

    def _boxed(self, look: Look, structure: Tensor, others: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Agreement within the margins of queries that have some, and the transforms: copies can be squeezed there.

        Returns:
            ``(n, k)``, and ``(n, k, dims, dims + 1)``.
        """
        (n, k), dims, device = candidates.shape, len(self.shape), candidates.device
        here, (centre, half) = bounds(grown(structure)), self.boxes[candidates.clamp(min=0)].split(dims, dim=2)
        framed = here[1].amin(dim=1) < FRAMED
        starts = unboxed(
            identity(dims, device), (here[0][:, None], here[1][:, None]), (centre, half),
            half_lengths(self.shape, device),
        )  # fmt: skip
        value = torch.full((n, k), -ABOVE_ALL, device=device)
        rows = torch.arange(n, device=device) if look.runner.waits else torch.nonzero(framed)[:, 0]
        if len(rows):
            which = torch.arange(k, device=device)[None] + k * rows[:, None]
            value[rows] = look.agreement(others, which, starts[rows][:, :, None], rows=rows)[:, :, 0]
        return torch.where(framed[:, None], value, -ABOVE_ALL), starts

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
        """Profile and transform of each pair, registered or left in place (or where a retriever had it).

        Whichever agrees more counts.

        A quarter of the image that was replaced can draw a copy away that had lain where its original lies.
        """
        moved, still = self._profiles(pairs, refined, runner), self._profiles(pairs, pairs.fallback, runner)
        stays = (combine(still) > combine(moved)).unsqueeze(1)
        return torch.where(stays, still, moved), torch.where(stays.unsqueeze(2), pairs.fallback, refined)

    def _blurred(self, pairs: Pairs, thetas: Tensor, profiles: Tensor, chosen: Tensor, runner: Runner) -> Tensor:
        """Profiles with candidates as blurred as the query, which is read off its likeliest candidate."""
        n, r = chosen.shape
        sharp = torch.where(chosen < 0, -ABOVE_ALL, combine(profiles).view(n, r))
        likeliest = sharp.argmax(dim=1) + r * torch.arange(n, device=chosen.device)
        one = pairs.some(likeliest, thetas)
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
            some = pairs.some(soft, thetas)
            profiles = profiles.index_copy(0, soft, self._profiles(some, some.thetas, runner, blur[soft]))
        return profiles


def inverted(images: Tensor, which: Tensor) -> Tensor:
    """Some of the images with black and white exchanged.

    Args:
        which: ``(batch,)``.
    """
    return torch.where(which.view(-1, *(1,) * (images.ndim - 1)), 1 - images, images)


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

    def agreement(
        self,
        others: Tensor,
        which: Tensor,
        thetas: Tensor,
        exchanged: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Combined agreement of pairs under several transforms.

        Args:
            others: of ``candidates``.
            which: ``(n, m)`` places in ``others``.
            thetas: ``(n, m, t, dims, dims + 1)``.
            exchanged: ``(n, m)`` whether the query is compared with black and white exchanged.
            rows: ``(n,)`` which queries they are; all of them by default.

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
            row = row if rows is None else rows[row]
            candidate = others[flat[pair // per_candidate]]
            images = self.images[row]
            if exchanged is not None:
                images = inverted(images, exchanged.flatten()[pair // per_candidate])
            profiles = profiles_of(images, self.structure[row], candidate, places[pair])
            values.append(combine(profiles))
        return torch.cat(values).view(*thetas.shape[:3])


@dataclass(frozen=True)
class ScoredBlock:
    """See ``protocols.Scored``."""

    candidates: Tensor
    similarity: Tensor
    transforms: Tensor
    profiles: Tensor
    inverted: Tensor | None = None

    @classmethod
    def of(
        cls,
        candidates: Tensor,
        similarity: Tensor,
        transforms: Tensor,
        profiles: Tensor,
        inverted: Tensor,
        refined: int,
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
            functional.pad(inverted & ~none, (0, short)),
        )
