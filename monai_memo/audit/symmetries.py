# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Looking images up turned and mirrored as well, for generators that were trained with such augmentation.

Synthetic, held-out and planted images go through the same look-ups, so that the control stays a control: with more
look-ups chance matches become more similar, and tau rises with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_memo.data.orientation import Symmetry, name_of
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.matches import Matches
from monai_memo.search.protocols import Search, SearchDescription

Images = NDArray[np.floating]
Embed = Callable[[Images], NDArray[np.float32]]


def turned(images: Images, symmetry: Symmetry) -> Images:
    """Images turned, at the size they have: oblong ones are resampled where axes are exchanged.

    Args:
        images: ``(n, channels, *spatial)``.
    """
    result = np.ascontiguousarray(symmetry(images))
    if result.shape == images.shape:
        return result.astype(images.dtype, copy=False)
    mode = "bilinear" if images.ndim == 4 else "trilinear"
    tensor = torch.from_numpy(result.astype(np.float32))
    resized = functional.interpolate(tensor, size=images.shape[2:], mode=mode, align_corners=False)
    return resized.numpy().astype(images.dtype)


def embed_views(images: Images, symmetries: Sequence[Symmetry], embed: Embed) -> NDArray[np.float32]:
    """``(symmetries, n, dim)`` embeddings of turned images."""
    return np.stack([embed(turned(images, one)) for one in symmetries])


def best_of_views(index: EmbeddingIndex, views: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Similarity and place of the nearest candidate under the best view.

    Args:
        views: ``(symmetries, n, dim)`` embeddings of the queries.

    Returns:
        ``(n, 1)`` each.
    """
    found = [index.search(view) for view in views]
    similarity, nearest = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
    best = similarity.argmax(axis=1)[:, None]
    return np.take_along_axis(similarity, best, axis=1), np.take_along_axis(nearest, best, axis=1)


class ViewsIndex:
    """Images under several symmetries: a candidate is as similar as its most similar view.

    Args:
        views: ``(symmetries, n, dim)`` embeddings.
    """

    def __init__(self, views: NDArray[np.float32]) -> None:
        self.n_views, self.n = views.shape[:2]
        self.index = EmbeddingIndex(views.reshape(-1, views.shape[-1]))

    def __len__(self) -> int:
        return self.n

    def search(
        self, queries: NDArray[np.floating], k: int = 1, block: int = 256
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """As ``EmbeddingIndex.search``; the ``k`` candidates of a query are different images."""
        if self.n_views == 1:
            return self.index.search(queries, k)
        similarity, nearest = np.empty((len(queries), k)), np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), block):
            values, places = self.index.search(queries[start : start + block], k * self.n_views)
            for row, images in enumerate(places % self.n):
                _, first = np.unique(images, return_index=True)
                kept = np.sort(first)[:k]  # k times as many views as there are of one image hold k images
                similarity[start + row], nearest[start + row] = values[row, kept], images[kept]
        return similarity, nearest


class TurnedSearch:
    """The same search in the same cohort, every query looked up under several symmetries.

    Args:
        plain: under none.
        symmetries: the identity first.
    """

    def __init__(self, plain: Search, symmetries: Sequence[Symmetry]) -> None:
        self.plain, self.symmetries = plain, tuple(symmetries)

    def search(
        self, queries: Images, store: str | Path | None = None, patients: NDArray[np.int64] | None = None
    ) -> Matches:
        """Matches under all symmetries, best first; a training image counts under its best one.

        Transforms are those of the turned query.
        """
        found = []
        for one in self.symmetries:
            kept = None if store is None else Path(store).with_suffix(f".{name_of(one)}.npz")
            found.append(self.plain.search(turned(np.asarray(queries), one), kept, patients))
        return Matches.best_of(found)

    def score(self, queries: Images, candidates: NDArray[np.int64], patients: NDArray[np.int64]) -> Matches:
        """Given pairs, as they lie."""
        return self.plain.score(queries, candidates, patients)

    def describe(self) -> SearchDescription:
        """As without symmetries."""
        return self.plain.describe()
