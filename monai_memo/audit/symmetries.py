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
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.reranker import NAMES, NOT_VERIFIED, Verified

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


class TurnedSearch(CopySearch):
    """The same search in the same cohort, every query looked up under several symmetries.

    Args:
        search: under none.
        symmetries: the identity first.
    """

    def __init__(self, search: CopySearch, symmetries: Sequence[Symmetry]) -> None:
        self.__dict__.update(search.__dict__)
        self.symmetries = tuple(symmetries)

    def __call__(
        self,
        queries: Images,
        own: NDArray[np.float32] | None = None,
        progress: bool = True,
        store: str | Path | None = None,
    ) -> Verified:
        """Candidates under all symmetries, best first; a training image counts under its best one.

        Placements are those of the turned query.
        """
        found = []
        for one in self.symmetries:
            kept = None if store is None else Path(store).with_suffix(f".{name_of(one)}.npz")
            first = own if one.is_identity else None
            found.append(super().__call__(turned(np.asarray(queries), one), first, progress, kept))
        return merged(found)


def merged(found: Sequence[Verified]) -> Verified:
    """Candidates of several look-ups of the same queries; each training image once, where it is most similar."""
    whole = {name: np.concatenate([getattr(one, name) for one in found], axis=1) for name in NAMES}
    order = np.argsort(-whole["similarity"], axis=1, kind="stable")
    rows = np.arange(len(order))[:, None]
    whole = {name: values[rows, order] for name, values in whole.items()}
    for row, candidates in enumerate(whole["candidates"]):
        _, first = np.unique(candidates, return_index=True)
        again = np.ones(len(candidates), dtype=bool)
        again[first] = False
        whole["candidates"][row, again] = -1
        whole["similarity"][row, again] = NOT_VERIFIED
    order = np.argsort(whole["candidates"] < 0, axis=1, kind="stable")  # the most similar stay in front
    return Verified(*(whole[name][rows, order] for name in NAMES))
