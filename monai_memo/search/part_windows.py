# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Windows of an image that are looked up by themselves, anywhere in the training images.

A region that was taken over into another patient's image drowns in what surrounds it. So every window of a quarter of
the image (an eighth of a volume) is looked up as if it were an image: everything outside is hidden, and it is compared
with every window of every training image, also mirrored. Windows are compared by their principal components, all with
the same say: who a patient is shows in the fine ones. It is one matrix product for each block of training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from torch import Tensor

from monai_memo.registration.affine import half_lengths, mirror, resized
from monai_memo.registration.filters import local_contrast
from monai_memo.search.gallery import Gallery, grey
from monai_memo.search.runner import Runner

SHARE = 0.5  # of each axis: a quarter of an image, an eighth of a volume
LENGTH = {2: 32, 3: 16}  # of the small images
BAND = (0.5, 1.2, 2.0)  # small pixels: low, high, window
STARTS = {2: 4, 3: 3}  # places of a query's window along each axis
MIRRORED_REACH = 0.125  # of the length; mirrored parts are looked for about where they would lie
COMPONENTS = 96
WANTED = {2: 24, 3: 12}
SAMPLE, SAMPLED_IMAGES = 8192, 256  # windows, and the images that they come from, which components are taken from
FLAT = 0.06  # of the strength of an ordinary window: less is nothing that could be recognised
FEWEST = 20  # training images from which a window's correlation is judged by that with all of them
NEVER = -1e9


@dataclass(frozen=True)
class PartCandidates:
    """Where windows of queries seem to come from.

    Attributes:
        training: ``(n, k)`` index of the training image; -1 where there are fewer.
        thetas: ``(n, k, dims, dims + 1)``, see ``registration.affine``.
        centres: ``(n, k, dims)`` centre of the window in the query, last axis first, in units of half the longest axis.
    """

    training: Tensor
    thetas: Tensor
    centres: Tensor


class PartRetriever:
    """Finds, for each query, the training images that some window of it resembles most.

    Args:
        wanted: candidates, each with the window that resembles it most; by default 24, of volumes 12.
    """

    def __init__(self, wanted: int | None = None) -> None:
        self.asked = wanted

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Vectors of all windows of the gallery."""
        self.gallery, self.dims = gallery, len(gallery.shape)
        self.wanted = self.asked or WANTED[self.dims]
        self.shape = tuple(min(length, LENGTH[self.dims]) for length in gallery.shape)
        self.lengths = tuple(max(1, round(SHARE * length)) for length in self.shape)
        self.places = tuple(length - extent + 1 for length, extent in zip(self.shape, self.lengths, strict=True))
        self.starts = list(product(*(_spread(count, STARTS[self.dims]) for count in self.places)))
        self.patients = torch.from_numpy(gallery.patients).to(runner.device)
        self.basis = self._components(runner)

        def make(block: Tensor) -> Tensor:
            images = grey(block)
            each = 4 * prod(self.places) * prod(self.lengths)
            parts = images.split(max(1, 2**26 // each))
            return torch.cat([self._vectors(self._all(self._features(part, torch.ones_like(part)))) for part in parts])

        self.vectors = gallery.derive("part windows", make, runner)  # (n, places, components)

    def __call__(self, images: Tensor, structure: Tensor, patients: Tensor | None, runner: Runner) -> PartCandidates:
        """Candidates of each query.

        Args:
            images, structure: ``(batch, 1, *spatial)`` in grey, and of ``filters.structured``.
            patients: ``(batch,)`` whose images are passed over.
        """
        features = self._features(images, structure)
        sides = torch.stack([features, features.flip(-1 if self.dims == 2 else 1)], dim=1)
        vectors = self._vectors(self._chosen(sides))  # (batch, 2, windows, components)
        values = torch.cat([self._upright(vectors[:, 0], runner), self._mirrored(vectors[:, 1], runner)], dim=1)
        if patients is not None:
            values = values.masked_fill((self.patients[None] == patients[:, None])[:, None], torch.nan)
        if len(self.gallery) >= FEWEST:
            # A window without features of its own resembles everything: what counts is how far one image stands out.
            centre = values.nanmean(dim=2, keepdim=True)
            spread = (values - centre).square().nanmean(dim=2, keepdim=True).sqrt()
            values = (values - centre) / spread.clamp(min=1e-3)
        best, window = values.nan_to_num(nan=NEVER).max(dim=1)  # (batch, n)
        value, training = best.topk(min(self.wanted, best.shape[1]), dim=1)
        thetas, centres = self._transforms(vectors.flatten(1, 2), training, window.gather(1, training))
        return PartCandidates(torch.where(value > NEVER / 2, training, -1), thetas, centres)

    def _features(self, images: Tensor, mask: Tensor) -> Tensor:
        """``(batch, *small)``."""
        share = resized(mask, self.shape)
        small = resized(images * mask, self.shape) / share.clamp(min=1e-3)
        return local_contrast(small, (share > 0.5).to(images.dtype), *BAND)[:, 0]

    def _all(self, features: Tensor) -> Tensor:
        """Every window: ``(batch, *small)`` to ``(batch, places, values)``."""
        for axis, extent in enumerate(self.lengths, start=1):
            features = features.unfold(axis, extent, 1)
        return features.flatten(self.dims + 1).flatten(1, self.dims)

    def _chosen(self, sides: Tensor) -> Tensor:
        """The windows of queries that are looked up: ``(batch, 2, *small)`` to ``(batch, 2, windows, values)``."""
        cut = []
        for start in self.starts:
            window = sides
            for axis, (first, extent) in enumerate(zip(start, self.lengths, strict=True), start=2):
                window = window.narrow(axis, first, extent)
            cut.append(window.flatten(2))
        return torch.stack(cut, dim=2)

    def _vectors(self, windows: Tensor) -> Tensor:
        """``(..., values)`` to ``(..., components)`` of length 1."""
        values = windows - windows.mean(dim=-1, keepdim=True)
        found = (values @ self.basis) / values.norm(dim=-1, keepdim=True).clamp(min=FLAT * values.shape[-1] ** 0.5)
        return found / found.norm(dim=-1, keepdim=True).clamp(min=1e-3)

    def _components(self, runner: Runner) -> Tensor:
        """``(values, components)`` principal components, each divided by its standard deviation."""
        rng = np.random.default_rng([runner.seed, 19])
        count = min(SAMPLED_IMAGES, len(self.gallery))
        chosen = np.sort(rng.choice(len(self.gallery), count, replace=False))
        each, found = -(-SAMPLE // count), []
        for some in np.array_split(chosen, -(-count // 16)):
            images = self.gallery.images(torch.from_numpy(some).to(runner.device), runner)
            windows = self._all(self._features(images, torch.ones_like(images)))
            drawn = torch.from_numpy(rng.integers(0, windows.shape[1], (len(images), each))).to(runner.device)
            found.append(windows[torch.arange(len(images), device=runner.device)[:, None], drawn].flatten(0, 1))
        values = torch.cat(found)
        values = values - values.mean(dim=1, keepdim=True)
        values = values / values.norm(dim=1, keepdim=True).clamp(min=FLAT * values.shape[1] ** 0.5)
        variance, vectors = torch.linalg.eigh((values.T @ values / len(values)).double())
        kept = min(COMPONENTS, len(variance))
        spread = variance[-kept:].clamp(min=1e-6 * float(variance[-1].clamp(min=1e-12))).sqrt()
        return (vectors[:, -kept:] / spread).float().contiguous()

    def _upright(self, vectors: Tensor, runner: Runner) -> Tensor:
        """``(batch, windows, n)`` highest correlation of each window with any window of each training image."""
        rows = vectors.flatten(0, 1)
        step = runner.at_once(4 * len(rows) * self.vectors.shape[1])
        parts = [self._highest(rows, part) for part in self.vectors.split(step)]
        return torch.cat(parts, dim=1).unflatten(0, vectors.shape[:2])

    def _mirrored(self, vectors: Tensor, runner: Runner) -> Tensor:
        """The same for windows of the mirrored query, with windows of training images that lie about there."""
        found = []
        for window, start in enumerate(self.starts):
            near = []
            for place, count, length in zip(start, self.places, self.shape, strict=True):
                reach = round(MIRRORED_REACH * length)
                near.append(range(max(0, place - reach), min(count, place + reach + 1)))
            which = torch.tensor([np.ravel_multi_index(place, self.places) for place in product(*near)])
            columns = self.vectors.index_select(1, which.to(vectors.device))
            step = runner.at_once(4 * len(vectors) * len(which))
            found.append(torch.cat([self._highest(vectors[:, window], part) for part in columns.split(step)], dim=1))
        return torch.stack(found, dim=1)

    @staticmethod
    def _highest(rows: Tensor, part: Tensor) -> Tensor:
        """``(rows, n)`` of ``(rows, components)`` and ``(n, places, components)``."""
        return (rows @ part.flatten(0, 1).T).unflatten(1, part.shape[:2]).amax(dim=2)

    def _transforms(self, vectors: Tensor, training: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms of chosen pairs of window and training image, and centres of the windows."""
        device, (batch, chosen) = training.device, training.shape
        rows = vectors[torch.arange(batch, device=device)[:, None], window]  # (batch, chosen, components)
        maps = (self.vectors[training.flatten()] @ rows.flatten(0, 1)[..., None])[..., 0]
        places = _peak(maps.unflatten(1, self.places))
        mirrored = window.flatten() >= len(self.starts)
        starts = torch.tensor(self.starts, dtype=torch.float32, device=device).repeat(2, 1)[window.flatten()]
        scale = 2 / torch.tensor(self.shape, dtype=torch.float32, device=device)
        unit, extent = half_lengths(self.gallery.shape, device), torch.tensor(self.lengths, device=device)
        shift = ((places - starts) * scale).flip(1) * unit
        centre = ((starts + extent / 2) * scale - 1).flip(1) * unit
        side = torch.stack([torch.eye(self.dims), mirror(self.dims)]).to(device)[mirrored.long()]
        centre = (side @ centre[..., None])[..., 0]  # of the query as it lies
        thetas = torch.cat([side, shift[..., None]], dim=2)
        return thetas.unflatten(0, (batch, chosen)), centre.unflatten(0, (batch, chosen))


def _spread(places: int, count: int) -> list[int]:
    """So many of these places, evenly, the first and the last among them.

    Example:
        >>> _spread(17, 4)
        [0, 5, 11, 16]
    """
    return sorted({round(number * (places - 1) / max(1, count - 1)) for number in range(count)})


def _peak(maps: Tensor) -> Tensor:
    """Place of the highest value, to a part of a step by a parabola: ``(batch, *places)`` to ``(batch, dims)``."""
    flat = maps.flatten(1)
    place = flat.argmax(dim=1, keepdim=True)
    peak, stride = flat.gather(1, place), 1
    found: list[Tensor] = []
    shape: Sequence[int] = maps.shape[1:]
    for count in reversed(shape):
        along = (place // stride) % count
        before = flat.gather(1, torch.where(along > 0, place - stride, place))
        after = flat.gather(1, torch.where(along < count - 1, place + stride, place))
        inner = (along > 0) & (along < count - 1)
        bend = (2 * peak - before - after).clamp(min=1e-6)
        part = torch.where(inner, ((after - before) / (2 * bend)).clamp(-0.5, 0.5), torch.zeros_like(peak))
        found.insert(0, along + part)
        stride *= count
    return torch.cat(found, dim=1)
