# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates for verification: the nearest training images of a query and of its moved and turned versions."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from monai_memo.registration.coarse import warp
from monai_memo.search.embedding_index import EmbeddingIndex

SHIFT, ROTATION, ZOOM = 0.16, 12.0, 1.15  # of half the length; degrees; factor
Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def query_views(dims: int) -> list[Tensor]:
    """``(dims, dims + 1)`` placements at which a query is looked up besides its own."""
    identity = torch.cat([torch.eye(dims), torch.zeros(dims, 1)], dim=1)
    views = []
    corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)] if dims == 2 else [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    if dims == 3:
        corners = [*corners, *[tuple(-x for x in corner) for corner in corners]]  # type: ignore[misc]
    for corner in corners:
        view = identity.clone()
        view[:, -1] = SHIFT * torch.tensor(corner)
        views.append(view)
    for factor in (ZOOM, 1 / ZOOM):
        view = identity.clone()
        view[:, :-1] *= factor
        views.append(view)
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    for first, second in planes:
        for degrees in (ROTATION, -ROTATION):
            view = identity.clone()
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            view[first, first] = view[second, second] = cosine
            view[first, second], view[second, first] = -sine, sine
            views.append(view)
    return views


def find_candidates(
    queries: NDArray[np.floating],
    embed: Embed,
    index: EmbeddingIndex,
    k: int = 16,
    own: NDArray[np.float32] | None = None,
    block: int = 256,
    progress: bool = True,
) -> list[NDArray[np.int64]]:
    """The candidates of each query: nearest by its own embedding, and by those of its versions.

    Args:
        queries: ``(n, channels, *spatial)`` in [0, 1].
        embed: images to ``(n, dim)``.
        index: embeddings of the training cohort.
        k: neighbours by the query itself, and as many by all its versions together.
        own: ``(n, dim)`` embeddings of the queries, if they are at hand.

    Returns:
        For each query a sorted array of between ``k`` and ``2 k`` indices (all, if the cohort is smaller).
    """
    k = min(k, len(index))
    result: list[NDArray[np.int64]] = []
    bar = tqdm(total=len(queries), desc="find candidates", disable=None if progress else True)
    for start in range(0, len(queries), block):
        images = np.asarray(queries[start : start + block], dtype=np.float32)
        nearest = index.search(embed(images) if own is None else own[start : start + block], k)[1]
        tensor = torch.from_numpy(images)
        found = []
        for view in query_views(images.ndim - 2):
            moved, inside = warp(tensor, view.expand(len(images), -1, -1))
            found.append(index.search(embed((moved * inside).numpy()), k))
        similarity, others = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        for row in range(len(images)):
            _, first = np.unique(others[row][np.argsort(-similarity[row], kind="stable")], return_index=True)
            ranked = others[row][np.argsort(-similarity[row], kind="stable")][np.sort(first)]
            result.append(np.unique(np.concatenate([nearest[row], ranked[:k]])))
        bar.update(len(images))
    bar.close()
    return result
