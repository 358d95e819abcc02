# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Closeness of whole images where they lie, for copies whose detail was drawn anew, with its scores normalised.

A diffusion model that starts from a training image keeps the layout and redraws the detail that a local comparison
rests on. Then the squared error says more: of images whose contrast was evened out place by place, since in plain ones
strong edges, which are where they are in many patients, outweigh what is left of fine detail. It is normalised by the
query's errors to further training images, as by Carlini et al. (Extracting Training Data from Diffusion Models, USENIX
Security 2023), because smooth, average images are near to many patients; and by the errors of the training image to
those of other patients, because one among many like it is near to many queries (speaker recognition normalises its
scores by both sides for the same reason). Medians, so that an image that stands twice in the cohort, which is copied
first of all, is not taken for one of many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.registration.affine import resized, within_reach
from monai_memo.registration.filters import smooth
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.inverted_file import InvertedFile, pays
from monai_memo.search.protocols import Scored
from monai_memo.search.runner import Runner

LENGTH = {2: 64, 3: 32}
LAYOUT, LAYOUT_BLUR = {2: 16, 3: 8}, 1.2
SKETCH = {2: 16, 3: 8}  # length of the images that large galleries are looked through by
BACKGROUND = 10  # training images that a query's closeness is normalised by, the nearest one not among them
EVEN_WITHIN, EVEN_CONTRAST, EVEN_FLOOR = 3.0, 0.25, 0.05  # pixels; deviation that every place gets; added to its own
COHORT = 5  # training images of other patients that a training image is normalised by
WEIGHT = 0.4  # of the median log error to either
SMALLEST_ERROR = 1e-6
EXACT_UP_TO, SHORTLIST = 4096, 64
EXACT_ON_CARD = 65_536
UPPER = (0.75, 0.8, 0.85, 0.9, 0.95, 0.975)  # percentiles that make equal values equally rare: one alone is chance
FEWEST_OTHERS = 3  # candidates of other patients that a lead is measured against
LEAD_POWER, LEAST_AGREEMENT = 1.25, 0.1
FEW_VOTES = 4.0  # of keypoints: that many make no difference
HALF_FROM = 20_000  # images from which vectors are kept in half precision


@dataclass(frozen=True)
class Closeness:
    """The nearest training image of ``n`` queries.

    Attributes:
        nearest: ``(n,)`` index of the training image.
        value: ``(n,)`` its closeness, unbounded, higher is closer.
        background: ``(n,)`` what was subtracted for the query's further neighbours.
    """

    nearest: Tensor
    value: Tensor
    background: Tensor


class WholeImages:
    """All training images and their mirror images, of even contrast, searched by mean squared error.

    Up to ``EXACT_UP_TO`` images (more on a graphics card) every error is calculated. In larger galleries images of 16
    pixels (8 voxels) are compared first, in very large ones by an inverted file; errors of the nearest ones are exact.

    Args:
        layout: compare small, blurred versions of equal brightness and contrast: what is left of a copy under strong
            noise or blur, or under a grid. Unseen patients gain nothing from noise or blur there, since both sides are
            blurred anyway.
    """

    def __init__(self, layout: bool = False) -> None:
        self.layout = layout

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Vectors of a gallery, on the runner's device."""
        self.dims = len(gallery.shape)
        lengths = LAYOUT if self.layout else LENGTH
        self.shape = tuple(min(length, lengths[self.dims]) for length in gallery.shape)
        self.runner, self.size = runner, len(gallery)
        kept = torch.float16 if self.size >= HALF_FROM else torch.float32
        self.vectors = gallery.derive(
            "layouts" if self.layout else "whole images", lambda block: self.vectors_of(block).to(kept), runner
        )
        self.patients = torch.from_numpy(gallery.patients).to(runner.device)
        self.most = int(np.unique(gallery.patients, return_counts=True)[1].max())
        self.columns = self._columns(self.vectors)
        self.file = InvertedFile(self.columns.T, runner) if pays(self.size, runner) else None
        if self.file is None:
            self.norms = self.columns.float().pow(2).sum(dim=0)
        else:
            self.columns = self.columns[:, :0]  # the file has them
        self._crowding = torch.full((self.size,), torch.nan, dtype=torch.float64, device=runner.device)
        if runner.waits:
            self._fill(torch.arange(self.size, device=runner.device))

    @property
    def exact(self) -> bool:
        """Whether all errors are calculated."""
        most = EXACT_ON_CARD if self.runner.waits else EXACT_UP_TO
        return self.size <= most or (self.layout and not pays(self.size, self.runner))

    def vectors_of(self, images: Tensor) -> Tensor:
        """``(n, channels, *spatial)`` to ``(n, values)``, scaled so that distances are mean squared errors.

        Layouts are those of grey values; whole images in colour are compared in colour. Brightness stays as it is.
        """
        small = resized(grey(images) if self.layout or images.shape[1] != 3 else images, self.shape)
        if self.layout:
            blurred = smooth(small, LAYOUT_BLUR) / smooth(torch.ones_like(small[:1]), LAYOUT_BLUR)
            centred = blurred.flatten(1) - blurred.flatten(1).mean(dim=1, keepdim=True)
            return centred / centred.norm(dim=1, keepdim=True).clamp(min=SMALLEST_ERROR)
        flat = evened(small).flatten(1)
        return flat / flat.shape[1] ** 0.5

    def mirrored(self, vectors: Tensor) -> Tensor:
        """Left and right exchanged: the last axis in 2D, the first in 3D, as in ``registration``."""
        return vectors.view(len(vectors), -1, *self.shape).flip(-1 if self.dims == 2 else 2).flatten(1)

    def _columns(self, vectors: Tensor) -> Tensor:
        """``(values, n)`` of what is looked through: all values, or those of small images."""
        if self.exact or self.layout:
            return vectors.T
        small = tuple(min(length, SKETCH[self.dims]) for length in self.shape)
        parts = [
            resized(part.float().view(len(part), -1, *self.shape), small).flatten(1) for part in vectors.split(4096)
        ]
        share = (vectors.shape[1] / parts[0].shape[1]) ** 0.5  # distances stay mean squared errors
        return (torch.cat(parts) * share).T.contiguous()

    def closeness(self, vectors: Tensor, own: Tensor | None = None) -> Closeness:
        """The nearest training image of each query.

        Args:
            vectors: of the queries.
            own: ``(n,)`` the patient of each query, whose images are passed over.
        """
        logs, places = self._neighbours(vectors, BACKGROUND, None if own is None else own[:, None])
        values = logs[:, :COHORT] - self.crowding(places[:, :COHORT], own)
        best = values.argmax(dim=1, keepdim=True)
        further = torch.arange(logs.shape[1] - 1, device=logs.device)[None]
        further = further + (further >= best).long()  # all but the best one
        background = WEIGHT * logs.gather(1, further).quantile(0.5, dim=1)
        return Closeness(places.gather(1, best)[:, 0], values.gather(1, best)[:, 0] - background, background)

    def _neighbours(self, vectors: Tensor, count: int, excluded: Tensor | None) -> tuple[Tensor, Tensor]:
        """The nearest training images, mirror images among them: minus log squared error and index, ``(n, count)``.

        Args:
            excluded: ``(n, patients)`` whose images are passed over (they come last in tiny cohorts).
        """
        most = 0 if excluded is None else 2 * excluded.shape[1] * self.most
        wanted = min(count + most, 2 * self.size)
        parts = []
        for some in vectors.split(self.runner.at_once(8 * self.size)) if self.runner.waits else vectors.split(16):
            parts.append(self._nearest(some, wanted))
        errors, places = (torch.cat(both) for both in zip(*parts, strict=True))
        logs = -errors.clamp(min=SMALLEST_ERROR).double().log()
        if excluded is not None:
            barred = (self.patients[places][:, :, None] == excluded[:, None, :]).any(dim=2)
            order = barred.long().argsort(dim=1, stable=True)  # allowed ones first, nearest first
            logs, places = logs.gather(1, order), places.gather(1, order)
        return logs[:, :count], places[:, :count]

    def _nearest(self, vectors: Tensor, wanted: int) -> tuple[Tensor, Tensor]:
        """Squared errors and indices of the nearest images, as they lie and mirrored, lowest error first."""
        sides = torch.stack([vectors, self.mirrored(vectors)], dim=1)  # a mirrored query for a mirrored gallery
        places = self._short(self._columns(sides.flatten(0, 1)).T, wanted if self.exact else max(wanted, SHORTLIST))
        # Differences of large sums are too coarse for near copies: the errors that count are taken pixel by pixel.
        rows, side = places % self.size, places // self.size
        exact = torch.stack([
            (self.vectors[which].float() - both[way]).pow(2).sum(dim=1)
            for which, both, way in zip(rows, sides, side, strict=True)
        ])  # fmt: skip
        errors, order = exact.sort(dim=1, stable=True)
        return errors[:, :wanted], rows.gather(1, order)[:, :wanted]

    def _short(self, looked: Tensor, count: int) -> Tensor:
        """Places of the nearest images by what is looked through, those of the second side behind all of the first.

        Args:
            looked: ``(2 n, values)``, both sides of each query one after the other.

        Returns:
            ``(n, count)``, fewer in tiny galleries.
        """
        n = len(looked) // 2
        if self.file is None:
            errors = self.norms - 2 * (looked.to(self.columns.dtype) @ self.columns).float()
            errors = errors.view(n, 2 * self.size)  # the query's own norm changes no order
            return errors.topk(min(count, errors.shape[1]), dim=1, largest=False).indices
        errors, places = self.file.nearest(looked, min(count, self.size))
        places.view(n, 2, -1)[:, 1] += self.size
        order = errors.view(n, -1).topk(min(count, 2 * errors.shape[1]), dim=1, largest=False).indices
        return places.view(n, -1).gather(1, order)

    def crowding(self, candidates: Tensor, own: Tensor | None = None) -> Tensor:
        """What is subtracted for other patients' images near to the candidates, ``(n, r)`` like these.

        Args:
            own: ``(n,)`` the patient of each query, who is no other patient either.
        """
        if own is None:
            self._fill(candidates)
            return self._crowding[candidates]
        flat = candidates.flatten()
        excluded = torch.stack([self.patients[flat], own.repeat_interleave(candidates.shape[1])], dim=1)
        logs, _ = self._neighbours(self.vectors[flat].float(), COHORT, excluded)
        return WEIGHT * logs.quantile(0.5, dim=1).view(candidates.shape)

    def _fill(self, candidates: Tensor) -> None:
        """On a card all of it is calculated beforehand: asking what is missing would make it wait."""
        if self.runner.waits and len(candidates) != self.size:
            return
        unknown = candidates.flatten()
        if not self.runner.waits:
            unknown = unknown[self._crowding[unknown].isnan()].unique()
        for some in unknown.split(1024) if len(unknown) else ():
            logs, _ = self._neighbours(self.vectors[some].float(), COHORT, self.patients[some][:, None])
            self._crowding[some] = WEIGHT * logs.quantile(0.5, dim=1)

    def of_candidates(self, vectors: Tensor, candidates: Tensor, background: Tensor) -> Tensor:
        """Closeness of chosen training images.

        Args:
            vectors: ``(n, values)`` of the queries.
            candidates: ``(n, r)`` indices; those below 0 are no candidates.
            background: ``(n,)`` of ``closeness``.

        Returns:
            ``(n, r)``; minus infinity where there is no candidate.
        """
        which = candidates.clamp(min=0)
        sides = torch.stack([vectors, self.mirrored(vectors)], dim=1)
        errors = torch.stack([
            (self.vectors[some].float()[:, None] - both[None]).pow(2).sum(dim=2).amin(dim=1)
            for some, both in zip(which, sides, strict=True)
        ])  # fmt: skip
        values = -errors.clamp(min=SMALLEST_ERROR).double().log() - background[:, None] - self.crowding(which)
        return torch.where(candidates < 0, -torch.inf, values)


def evened(images: Tensor) -> Tensor:
    """Images of the same contrast everywhere; their brightness in wide areas stays.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1].
    """
    weight = smooth(torch.ones_like(images[:1]), EVEN_WITHIN)
    wide = smooth(images, EVEN_WITHIN) / weight
    detail = images - wide
    strength = smooth(detail**2, EVEN_WITHIN) / weight
    return wide + EVEN_CONTRAST * detail / torch.sqrt(strength + EVEN_FLOOR**2)


@dataclass(frozen=True)
class CommonScale:
    """Brings closeness to the scale of the local similarity, so that equal values are equally rare.

    Both are measured on training images that are looked up among the other patients' ones: held-out images stay
    unused, so that thresholds and p-values that come from them remain valid.

    Attributes:
        closeness, similarity: two points of the straight line that fits their upper percentiles best, the first at
            their medians; similarity on Fisher's scale.
    """

    closeness: tuple[float, float]
    similarity: tuple[float, float]

    @classmethod
    def between(cls, closeness: NDArray[np.float64], similarity: NDArray[np.float64]) -> CommonScale | None:
        """From values of the same cohort; None where one of them does not vary."""
        fisher = np.arctanh(np.clip(similarity, -1 + SMALLEST_ERROR, 1 - SMALLEST_ERROR))
        (middle, high, *upper), (to_middle, to_high, *to) = (
            np.quantile(x, [0.5, 0.9, *UPPER]) for x in (closeness, fisher)
        )
        if not (high > middle and to_high > to_middle):
            return None
        steps, to_steps = np.array(upper) - middle, np.array(to) - to_middle
        slope = float((steps * to_steps).sum() / (steps**2).sum())
        return cls((float(middle), float(high)), (float(to_middle), float(to_middle + slope * (high - middle))))

    def __call__(self, closeness: NDArray[np.float64]) -> NDArray[np.float64]:
        """Closeness to a similarity from -1 to 1."""
        (middle, high), (to_middle, to_high) = self.closeness, self.similarity
        scaled: NDArray[np.float64] = np.tanh(
            to_middle + (closeness - middle) * (to_high - to_middle) / (high - middle)
        )
        return np.minimum(scaled, 1 - SMALLEST_ERROR)


def leads(scored: Scored, patients: Tensor) -> Tensor:
    """How far each candidate agrees with its query better than the candidates of other patients do.

    Noise, blur, writing and other images that are mixed in lower the agreement of all candidates alike; what one of
    them has beyond the others tells a copy. In proportion to what the others have, since noise shrinks all differences.
    The second best of the others counts, so that the originals of a mixture of two do not hide one another. The square
    root of the lead, since leads have a longer tail than similarities: a straight line (``CommonScale``) through those
    of 200 images put single unseen ones above all copies.

    Only candidates that lie where all of them were tried are told of (``registration.affine.within_reach``): one that
    keypoints placed elsewhere is ahead of others that were never looked at there.

    Args:
        scored: registered candidates.
        patients: ``(images,)`` of the gallery.

    Returns:
        ``(n, r, 2)``: of all bands, and of the finest; minus infinity where fewer than ``FEWEST_OTHERS``
        candidates are of other patients.
    """
    limit, candidates = 1 - SMALLEST_ERROR, scored.candidates
    fisher = torch.atanh(scored.profiles.double().clamp(-limit, limit))
    values = torch.stack([fisher.mean(dim=2), fisher[:, :, 0]], dim=2)  # the coarsest alone has too long a tail
    there, whose = candidates >= 0, patients[candidates.clamp(min=0)]
    other = there[:, None, :] & (whose[:, :, None] != whose[:, None, :])  # (n, r, others)
    count = other.sum(dim=2)
    beside = torch.where(other[:, :, :, None], values[:, None], -torch.inf)
    second = beside.topk(min(2, beside.shape[2]), dim=2).values[:, :, -1]
    lead = (values - second) / second.clamp(min=LEAST_AGREEMENT) ** LEAD_POWER
    lead = lead.sign() * lead.abs().sqrt()
    usable = there & (count >= FEWEST_OTHERS) & within_reach(scored.transforms)
    return torch.where(usable[:, :, None], lead, -torch.inf)


def vote_leads(votes: Tensor, found: Tensor, candidates: Tensor, patients: Tensor) -> Tensor:
    """How many more keypoints agree on each candidate than on those of other patients.

    Args:
        votes: ``(n, k)`` of ``Placed``.
        found: ``(n, k)`` their images, -1 where there is none.
        candidates: ``(n, r)`` of which the lead is asked.
        patients: ``(images,)`` of the gallery.

    Returns:
        ``(n, r)`` logarithm of a ratio; minus infinity for candidates without votes, or with too few others.
    """
    same = (candidates[:, :, None] == found[:, None, :]) & (found >= 0)[:, None, :]
    own = (same * votes[:, None, :]).sum(dim=2)
    whose, theirs = patients[candidates.clamp(min=0)], patients[found.clamp(min=0)]
    other = (found >= 0)[:, None, :] & (whose[:, :, None] != theirs[:, None, :])
    middle = torch.where(other, votes[:, None, :].double(), torch.nan).nanquantile(0.5, dim=2)
    lead = ((own + FEW_VOTES) / (middle + FEW_VOTES)).log()
    return torch.where((own > 0) & (other.sum(dim=2) >= FEWEST_OTHERS), lead, -torch.inf)
