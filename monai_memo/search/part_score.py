# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How well a region of a query agrees with a training image, once that is brought to lie on the region."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.affine import grid_of, within
from monai_memo.registration.filters import local_contrast
from monai_memo.registration.gauss_newton import refine
from monai_memo.registration.lncc import CLOSEST, lncc_maps, step_between_windows
from monai_memo.search.part_windows import SHARE

LOOK_BAND = (0.5, 1.5, 3.0)  # of what is looked at first; in pixels: low, high, window
CONTRAST_BAND = (0.7, 2.0, 4.0)  # of what is registered
MARGIN = {2: 4, 3: 2}  # pixels around a window, so that it can move
STEPS = {2: 6, 3: 4}  # of registration
BEYOND = 0.5  # pixels by which windows of local agreement are wider than a band's own scale; regions have edges
FINE = 2  # bands that count, finest first
SHAPES: dict[int, tuple[tuple[float, ...], ...]] = {  # windows, as shares of the axes
    2: ((0.5, 0.5), (0.25, 1.0), (1.0, 0.25), (0.375, 0.375)),
    3: ((0.5, 0.5, 0.5), (0.375, 0.375, 0.375)),
}
HIDDEN = 0.3
LEAST_SPREAD = 0.5  # of the median spread over windows: some windows hardly vary
EXTENDED = 0.35  # of a window's mean agreement that the next row must have to belong to the region


@dataclass(frozen=True)
class Crops:
    """Windows of images, cut out so that they can be registered for themselves.

    Args:
        shape: spatial shape of the images.
    """

    shape: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial shape of a window with its margin."""
        return tuple(min(length, round(SHARE * length) + 2 * MARGIN[len(self.shape)]) for length in self.shape)

    @property
    def zoom(self) -> float:
        """Of a window's coordinates, in units of half its own longest axis."""
        return max(self.size) / max(self.shape)

    def cut(self, images: Tensor, centres: Tensor, thetas: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Windows of images, and ``(batch, 1, *size)`` 1 where the images have pixels.

        Args:
            images: ``(batch, channels, *spatial)``.
            centres: ``(batch, dims)`` in a query, see ``PartCandidates``.
            thetas: ``(batch, dims, dims + 1)`` that bring the images to the query; None: the images are the queries.
        """
        dims, longest = len(self.shape), max(self.shape)
        places = []
        for row in range(dims):
            length = self.size[dims - 1 - row]
            along = (2 * torch.arange(length, dtype=torch.float32, device=images.device) + 1 - length) / longest
            along = along.view([-1 if axis == dims - 1 - row else 1 for axis in range(dims)])
            places.append(centres[:, row].view(-1, *(1,) * dims) + along)
        if thetas is not None:
            ways = thetas.view(*thetas.shape, *(1,) * dims)
            places = [
                sum((ways[:, row, column] * places[column] for column in range(dims)), ways[:, row, dims])
                for row in range(dims)
            ]
        places = [place * (longest / self.shape[dims - 1 - row]) for row, place in enumerate(places)]
        places = [place.expand(len(images), *self.size) for place in places]
        cut = functional.grid_sample(images, grid_of(places), padding_mode="border", align_corners=False)
        return cut, within(places).unsqueeze(1)

    def composed(self, thetas: Tensor, centres: Tensor, moved: Tensor) -> Tensor:
        """The transform of whole images that follows from one of their windows.

        Args:
            thetas, centres: with which the training image's window was cut.
            moved: ``(batch, dims, dims + 1)`` registration of both windows, in coordinates of the window.
        """
        first, start = thetas[:, :, :-1], thetas[:, :, -1]
        second, shift = moved[:, :, :-1], moved[:, :, -1]
        here = centres - (second @ centres[..., None])[..., 0] + self.zoom * shift
        return torch.cat([first @ second, (first @ here[..., None])[..., 0].add(start)[..., None]], dim=2)


@dataclass(frozen=True)
class Cut:
    """Windows of queries and of candidates side by side.

    Attributes:
        query, seen: ``(pairs, 1, *size)``, and 1 where the query has pixels and structure.
        candidate, inside: likewise, 1 where the candidate has pixels.
    """

    query: Tensor
    seen: Tensor
    candidate: Tensor
    inside: Tensor

    @classmethod
    def of(
        cls, crops: Crops, query: Tensor, structure: Tensor, candidate: Tensor, thetas: Tensor, centres: Tensor
    ) -> Cut:
        """Cut out of whole images.

        Args:
            query, structure, candidate: ``(pairs, 1, *spatial)``.
            thetas, centres: of ``PartCandidates``, ``(pairs, ...)``.
        """
        first, inside = crops.cut(query, centres)
        seen = (crops.cut(structure, centres)[0] * inside > 0.5).to(first.dtype)
        return cls(first, seen, *crops.cut(candidate, centres, thetas))

    @classmethod
    def concat(cls, parts: Sequence[Cut]) -> Cut:
        """Pairs of several blocks."""
        names = ("query", "seen", "candidate", "inside")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def rows(self, chosen: Tensor) -> Cut:
        """Some of the pairs."""
        return Cut(self.query[chosen], self.seen[chosen], self.candidate[chosen], self.inside[chosen])

    def _contrasts(self, band: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
        return local_contrast(self.query, self.seen, *band), local_contrast(self.candidate, self.inside, *band)

    def alike(self) -> Tensor:
        """``(pairs,)`` correlation of fine detail."""
        first, second = (one.flatten(1) for one in self._contrasts(LOOK_BAND))
        return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=1e-3)

    def registered(self) -> Tensor:
        """``(pairs, dims, dims + 1)`` how the candidate's window has to be moved, in coordinates of the window."""
        dims = self.query.ndim - 2
        start = torch.eye(dims, dims + 1, device=self.query.device).expand(len(self.query), dims, dims + 1)
        return refine(start, *self._contrasts(CONTRAST_BAND), steps=STEPS[dims])


def agreement(query: Tensor, structure: Tensor, candidate: Tensor, thetas: Tensor) -> Tensor:
    """Agreement of fine detail at every so many pixels: ``(pairs, *kept)`` on Fisher's scale; NaN where hidden.

    Coarse structure is left out: all patients share it, and the windows that it takes reach beyond the region.
    """
    step = step_between_windows(query.shape[2:])
    maps, visible = lncc_maps(query, structure, candidate, thetas, 0.0, step, BEYOND)
    fine = torch.atanh(maps[:, :FINE].clamp(-CLOSEST, CLOSEST)).mean(dim=1)
    return fine.masked_fill(visible[:, 0] < 0.5, torch.nan)


@dataclass(frozen=True)
class InWindows:
    """The best window of each pair: ``(pairs,)`` its score and its number."""

    score: Tensor
    window: Tensor


@dataclass(frozen=True)
class Windows:
    """All windows of a quarter of an image, and how much agreement is usual in each.

    Attributes:
        kept: shape of the maps of ``agreement``.
        usual, spread: ``(windows,)`` mean and standard deviation among training images of other patients.
    """

    kept: tuple[int, ...]
    usual: Tensor
    spread: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> Windows:
        """From ``(images, candidates, *kept)`` of images that no candidate is a copy of."""
        kept = tuple(maps.shape[2:])
        most = means_in(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]).amax(dim=1)
        spread = most.std(dim=0)
        return cls(kept, most.mean(dim=0), spread.clamp(min=LEAST_SPREAD * float(spread.median()) + 1e-3))

    @classmethod
    def plain(cls, maps: Tensor) -> Windows:
        """Without a scale, for cohorts of few patients."""
        kept = tuple(maps.shape[2:])
        zero = means_in(maps.flatten(0, 1)[:1])[0] * 0
        return cls(kept, zero, zero + 1)

    def __call__(self, maps: Tensor) -> InWindows:
        """Scores of ``(pairs, *kept)`` of ``agreement``."""
        best = ((means_in(maps) - self.usual) / self.spread).max(dim=1)
        return InWindows(best.values, best.indices)

    def regions(self, maps: NDArray[np.float32], windows: NDArray[np.int64]) -> NDArray[np.float64]:
        """``(n, dims, 2)`` shares of each axis: the best windows, extended as far as there is agreement."""
        found = [self._extended(one, int(window)) for one, window in zip(maps, windows, strict=True)]
        return np.array(found, dtype=np.float64).reshape(len(maps), len(self.kept), 2)

    def _extended(self, values: NDArray[np.float32], window: int) -> list[list[float]]:
        start, extent = list(places_of(self.kept))[window]
        box = [[a, a + length] for a, length in zip(start, extent, strict=True)]
        inside = values[_slices(box)]
        shown = np.isfinite(inside)
        needed = EXTENDED * float(inside[shown].mean()) if shown.any() else np.inf

        def agrees(axis: int, row: int) -> bool:
            found = values[_slices([*box[:axis], [row, row + 1], *box[axis + 1 :]])]
            seen = found[np.isfinite(found)]
            return 2 * seen.size >= found.size and float(seen.mean()) >= needed

        for axis in range(len(box)):  # less where a window reaches beyond what the training image shows
            while box[axis][1] - box[axis][0] > 1 and not agrees(axis, box[axis][0]):
                box[axis][0] += 1
            while box[axis][1] - box[axis][0] > 1 and not agrees(axis, box[axis][1] - 1):
                box[axis][1] -= 1
        grown = True
        while grown:
            grown = False
            for axis in range(len(box)):
                if box[axis][0] > 0 and agrees(axis, box[axis][0] - 1):
                    box[axis][0], grown = box[axis][0] - 1, True
                if box[axis][1] < self.kept[axis] and agrees(axis, box[axis][1]):
                    box[axis][1], grown = box[axis][1] + 1, True
        return [[low / length, high / length] for (low, high), length in zip(box, self.kept, strict=True)]


def _slices(box: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    return tuple(slice(low, high) for low, high in box)


def extents_of(kept: Sequence[int]) -> list[tuple[int, ...]]:
    """Lengths of the windows of each kind, at least one each."""
    return [
        tuple(max(1, round(share * length)) for share, length in zip(shares, kept, strict=True))
        for shares in SHAPES[len(kept)]
    ]


def places_of(kept: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Start and lengths of every window, in the order of ``means_in``."""
    for extent in extents_of(kept):
        for start in product(*(range(length - long + 1) for length, long in zip(kept, extent, strict=True))):
            yield start, extent


def means_in(maps: Tensor) -> Tensor:
    """Mean agreement of what is visible in every window: ``(pairs, *kept)`` to ``(pairs, windows)``."""
    pool = functional.avg_pool2d if maps.ndim == 3 else functional.avg_pool3d
    visible = (~maps.isnan()).to(maps.dtype)
    both = torch.stack([maps.nan_to_num(nan=0.0), visible], dim=1)
    found = []
    for extent in extents_of(maps.shape[1:]):
        means: Tensor = pool(both, extent, stride=1)  # type: ignore[operator]
        # A window of which little is visible must not be carried by that little.
        found.append((means[:, 0] / (means[:, 1] + HIDDEN)).flatten(1))
    return torch.cat(found, dim=1)
