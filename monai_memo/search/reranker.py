# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Retrieve and verify: is one of the nearest training images the very image, once it is aligned?

The embedding finds the right image nearly always, but its similarity says little about whether that image is a copy or
another patient who looks alike. So the nearest candidates of each query are aligned with it and compared place by place
and band by band. The verified similarity is the correlation in the best two fifths of all places, over all bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from monai_memo.registration.coarse import CoarseSearch, local_contrast, refine
from monai_memo.registration.filters import octaves, structured
from monai_memo.registration.lncc import agreement_maps, combine, matched_blur, profile
from monai_memo.sealing import fingerprint, is_sealed, write_sealed

CONTRAST_BAND = (1.0, 4.0, 5.0)  # of the images that are aligned; in pixels: low, high, window
SAVE_EVERY = 64
VERSION = 2  # of the verification: raise it when the same images come to give another result
NOT_VERIFIED = -1.0
NAMES = ("candidates", "similarity", "placements", "profiles", "whole")


@dataclass(frozen=True)
class Verified:
    """Verified candidates of ``n`` queries, best first.

    Attributes:
        candidates: ``(n, r)`` index of the training image; -1 where a query has fewer candidates.
        similarity: ``(n, r)`` verified similarity, -1 to 1; -1 where there is no candidate.
        placements: ``(n, r, dims, dims + 1)``, see ``alignment``.
        profiles: ``(n, r, bands)`` agreement in each band, finest first.
        whole: ``(n, r)`` similarity of the whole images (``whole_image``); -1 where it was not measured.
    """

    candidates: NDArray[np.int64]
    similarity: NDArray[np.float64]
    placements: NDArray[np.float32]
    profiles: NDArray[np.float32]
    whole: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.candidates)

    def rows(self, chosen: NDArray[np.int64] | slice) -> Verified:
        """Some of the queries."""
        return Verified(*(getattr(self, name)[chosen] for name in NAMES))

    def with_whole(self, whole: NDArray[np.float64]) -> Verified:
        """The better of both similarities counts, and the candidates are put in its order."""
        similarity = np.maximum(self.similarity, whole)
        order = np.argsort(-similarity, axis=1, kind="stable")
        rows = np.arange(len(self))[:, None]
        return Verified(
            self.candidates[rows, order], similarity[rows, order], self.placements[rows, order],
            self.profiles[rows, order], whole[rows, order],
        )  # fmt: skip


def grey(pixels: NDArray[np.floating]) -> Tensor:
    """``(n, channels, *spatial)`` to ``(n, 1, *spatial)`` float32."""
    return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)).mean(dim=1, keepdim=True)


class Verifier:
    """Verifies candidates among the images of one cohort.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1] of the training cohort, may be memory-mapped.
        refined: candidates of each query that are aligned to the pixel; the others are dropped after a coarse look.
        affine: let the alignment end with all entries of the matrix free, for images that were squeezed.

    Example:
        >>> import numpy as np
        >>> images = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
        >>> found = Verifier(images)(images[1:2, ..., ::-1], np.array([[0, 1, 2]]), progress=False)
        >>> int(found.candidates[0, 0]), bool(found.similarity[0, 0] > 0.99)
        (1, True)
    """

    def __init__(self, pixels: NDArray[np.floating], refined: int = 5, affine: bool = True) -> None:
        self.pixels, self.refined, self.affine = pixels, refined, affine
        self.shape = tuple(pixels.shape[2:])
        self.search = CoarseSearch(self.shape)
        blocks = []
        with torch.inference_mode():
            for start in range(0, len(pixels), 256):
                images = grey(pixels[start : start + 256])
                blocks.append(self.search.features(images, torch.ones_like(images)))
        self.features = torch.cat(blocks)

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(
        self,
        queries: NDArray[np.floating],
        candidates: Sequence[NDArray[np.int64]] | NDArray[np.int64],
        progress: bool = True,
        store: str | Path | None = None,
        kept: NDArray[np.int64] | None = None,
    ) -> Verified:
        """Verify the candidates of each query.

        Args:
            queries: ``(n, channels, *spatial)`` in [0, 1], prepared like the cohort.
            candidates: for each query the indices of its candidates, at least one.
            store: file (``.npz``) that keeps what is done; a call that was killed continues there. It is made again
                where it is damaged, or was made from other images or candidates.
            kept: ``(n,)`` a candidate of each query that is never dropped after the coarse look.
        """
        identity = "" if store is None else self._identity(queries, candidates, kept)
        done = _stored(store, identity)
        rows: list[Verified] = [] if done is None else [done]
        start = 0 if done is None else len(done)
        bar = tqdm(
            total=len(queries),
            initial=start,
            desc="verify",
            disable=None if progress and start < len(queries) else True,
        )
        with torch.inference_mode(), bar:
            for position in range(start, len(queries)):
                sure = None if kept is None else int(kept[position])
                rows.append(self._verify(queries[position : position + 1], np.asarray(candidates[position]), sure))
                bar.update()
                if store is not None and ((position + 1) % SAVE_EVERY == 0 or position + 1 == len(queries)):
                    rows = [_joined(rows)]
                    _save(store, rows[0], identity)
        return _joined(rows)

    def _identity(
        self,
        queries: NDArray[np.floating],
        candidates: Sequence[NDArray[np.int64]] | NDArray[np.int64],
        kept: NDArray[np.int64] | None,
    ) -> str:
        lengths = [len(found) for found in candidates]
        arrays = [self.pixels, queries, np.concatenate([np.asarray(found) for found in candidates])]
        if kept is not None:
            arrays.append(np.asarray(kept))
        return fingerprint("verified matches", [VERSION, self.refined, self.affine, lengths, kept is None], arrays)

    def _verify(self, query: NDArray[np.floating], candidates: NDArray[np.int64], sure: int | None = None) -> Verified:
        dims, bands = len(self.shape), len(octaves(self.shape))
        image = grey(query)
        mask = structured(image)
        which = torch.from_numpy(candidates)
        _, placements = self.search(
            self.search.features(image, mask)[0], self.features[which], min(2, len(self.search.transforms))
        )
        others = grey(self.pixels[candidates])
        # Most copies lie where their original lies; with a quarter replaced, the coarse search can miss that.
        in_place = torch.cat([torch.eye(dims), torch.zeros(dims, 1)], dim=1)
        placements = torch.cat([placements, in_place.expand(len(which), 1, dims, dims + 1)], dim=1)
        placements, kept = self._shortlist(image, others, placements, np.flatnonzero(candidates == sure))
        which, others = which[kept], others[kept]
        first = local_contrast(image, mask, *CONTRAST_BAND).expand(len(which), *([-1] * (dims + 1)))
        second = local_contrast(others, torch.ones_like(others), *CONTRAST_BAND)
        placements = refine(placements, first, second, steps=6)
        if self.affine:
            placements = refine(placements, first, second, steps=3, affine=True)
        profiles, placements = self._better(image, others, placements, in_place.expand(len(which), dims, dims + 1))
        # The blur is the query's; it is read off the likeliest candidate.
        likeliest = slice(best := int(combine(profiles).argmax()), best + 1)
        blur = matched_blur(image, others[likeliest], placements[likeliest])
        if blur:
            profiles = profile(*agreement_maps(image.expand_as(others), others, placements, blur)[:2])
        similarity = combine(profiles)
        order = similarity.argsort(descending=True, stable=True)
        result = Verified(
            np.full((1, self.refined), -1, dtype=np.int64),
            np.full((1, self.refined), NOT_VERIFIED),
            np.zeros((1, self.refined, dims, dims + 1), dtype=np.float32),
            np.zeros((1, self.refined, bands), dtype=np.float32),
            np.full((1, self.refined), NOT_VERIFIED),
        )
        n = len(order)
        result.candidates[0, :n] = which[order].numpy()
        result.similarity[0, :n] = similarity[order].double().numpy()
        result.placements[0, :n] = placements[order].numpy()
        result.profiles[0, :n] = profiles[order].numpy()
        return result

    @staticmethod
    def _better(image: Tensor, others: Tensor, refined: Tensor, in_place: Tensor) -> tuple[Tensor, Tensor]:
        """Profile and placement of each candidate, refined or left in place, whichever agrees more.

        A quarter of the image that was replaced can draw a copy away that had lain where its original lies.
        """
        moved, still = (
            profile(*agreement_maps(image.expand_as(others), others, places)[:2]) for places in (refined, in_place)
        )
        stays = (combine(still) > combine(moved)).unsqueeze(1)
        return torch.where(stays, still, moved), torch.where(stays.unsqueeze(2), in_place, refined)

    def _shortlist(
        self, image: Tensor, others: Tensor, placements: Tensor, sure: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """The candidates that agree best at half the size, each at the better of its coarse placements.

        Those in ``sure`` come in any case.

        Correlation over the whole image would drop copies of which a part was replaced.
        """
        per_candidate = placements.shape[1]
        pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
        halve = min(self.shape) >= 32
        small, small_others = (pool(image, 2), pool(others, 2)) if halve else (image, others)
        flat = placements.flatten(0, 1)
        repeated = small_others.repeat_interleave(per_candidate, dim=0)
        agreement, visible, _ = agreement_maps(small.expand_as(repeated), repeated, flat)
        value = combine(profile(agreement, visible)).view(-1, per_candidate)
        best, place = value.max(dim=1)
        best[torch.from_numpy(sure)] += 2  # above every agreement
        kept = best.topk(min(self.refined, len(best))).indices
        return placements[kept, place[kept]], kept


def _joined(rows: list[Verified]) -> Verified:
    return Verified(*(np.concatenate([getattr(row, name) for row in rows]) for name in NAMES))


def _save(store: str | Path, found: Verified, identity: str) -> None:
    arrays = {name: getattr(found, name) for name in NAMES}
    write_sealed(store, lambda temporary: np.savez(temporary, **arrays), identity)


def _stored(store: str | Path | None, identity: str) -> Verified | None:
    if store is None or not is_sealed(store, identity):
        return None
    with np.load(store, allow_pickle=False) as found:
        return Verified(*(found[name] for name in NAMES))
