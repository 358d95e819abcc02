# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates by embedding: the nearest training images of a query and of its moved and turned versions."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_memo.registration.affine import identity, kept_on, warp
from monai_memo.search.checks import checked_vectors
from monai_memo.search.gallery import Gallery, as_tensor
from monai_memo.search.protocols import Encoder
from monai_memo.search.runner import Runner

SHIFT, ROTATION, ZOOM = 0.16, 12.0, 1.15  # of half the length; degrees; factor
NEIGHBOURS = 24


@lru_cache(maxsize=4)
def query_views(dims: int) -> tuple[Tensor, ...]:
    """``(dims, dims + 1)`` transforms under which a query is looked up besides its own."""
    unmoved = identity(dims)
    views = []
    corners = [(1, 1), (1, -1), (-1, 1), (-1, -1)] if dims == 2 else [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    if dims == 3:
        corners = [*corners, *[tuple(-x for x in corner) for corner in corners]]  # type: ignore[misc]
    for corner in corners:
        view = unmoved.clone()
        view[:, -1] = SHIFT * torch.tensor(corner)
        views.append(view)
    for factor in (ZOOM, 1 / ZOOM):
        view = unmoved.clone()
        view[:, :-1] *= factor
        views.append(view)
    planes = [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]
    for first, second in planes:
        for degrees in (ROTATION, -ROTATION):
            view = unmoved.clone()
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            view[first, first] = view[second, second] = cosine
            view[first, second], view[second, first] = -sine, sine
            views.append(view)
    return tuple(views)


def correlation_form(vectors: Tensor) -> Tensor:
    """Centred and of length 1, so that inner products are Pearson correlations; vectors without variation become 0."""
    centred = vectors - vectors.mean(dim=1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-12)


class ArrayEncoder:
    """An encoder from a function on arrays, for networks of other frameworks.

    Args:
        function: ``(n, channels, *spatial)`` in [0, 1] to ``(n, dim)``.
    """

    def __init__(self, function: Callable[[NDArray[np.float32]], NDArray[np.floating]]) -> None:
        self.function = function

    def __call__(self, images: Tensor) -> Tensor:
        """See ``protocols.Encoder``."""
        return as_tensor(self.function(images.cpu().numpy()), images.device)


class EmbeddingRetriever:
    """The nearest images by an encoder's embeddings, exactly, by Pearson correlation.

    Args:
        encoder: a torch module (moved to the device when fitted), or any function of tensors.
        neighbours: candidates by the query itself, and as many by all its versions together.
        batch_size: images that the encoder sees at once.
    """

    def __init__(self, encoder: Encoder, neighbours: int = NEIGHBOURS, batch_size: int = 64) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        self.encoder, self.neighbours, self.batch_size = encoder, neighbours, batch_size
        self.vectors = torch.empty(0)

    def encode(self, images: Tensor) -> Tensor:
        """``(n, dim)`` embeddings in ``correlation_form``."""
        parts = images.split(self.batch_size)
        vectors = [checked_vectors(self.encoder, self.encoder(part), len(part)).float() for part in parts]
        return correlation_form(torch.cat(vectors))

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Embed the gallery, unless it comes with embeddings."""
        if isinstance(self.encoder, nn.Module):
            self.encoder.to(runner.device)
            with suppress(NotImplementedError):  # torch.export's programs have one mode, and refuse to be asked
                self.encoder.eval()
        if gallery.embeddings is not None:
            self.vectors = correlation_form(as_tensor(gallery.embeddings, runner.device))
            return
        blocks = gallery.blocks(runner)
        self.vectors = torch.cat([self.encode(gallery.block(rows, runner)) for rows in blocks])

    def __call__(self, queries: Tensor, runner: Runner) -> Tensor:
        """``(batch, 2 k)``: the nearest of each query, then the nearest of its versions."""
        if isinstance(self.encoder, nn.Module):
            self.encoder.to(runner.device)  # others may have moved it since
        k = min(self.neighbours, len(self.vectors))
        nearest = [(self.encode(queries) @ self.vectors.T).topk(k, dim=1).indices]
        best: Tensor | None = None
        for view in query_views(queries.ndim - 2):
            moved, inside = warp(queries, kept_on(queries.device, view).expand(len(queries), -1, -1))
            similarity = self.encode(moved * inside) @ self.vectors.T
            best = similarity if best is None else torch.maximum(best, similarity)
        assert best is not None
        return torch.cat([*nearest, best.topk(k, dim=1).indices], dim=1)
