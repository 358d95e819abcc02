# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a search is made of. Anything with these methods fits: no class has to be inherited from.

A search retrieves candidates for each query, registers and scores them, and takes the best. Put in your own parts. An
encoder is any frozen torch network, from images in [0, 1] to vectors:

    >>> import numpy as np, torch
    >>> from monai_memo.search import CopySearch, EmbeddingRetriever, Gallery, RegisteredReranker, ShapeRetriever
    >>> training = np.random.default_rng(0).random((6, 1, 32, 32), dtype=np.float32)
    >>> network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 16))
    >>> search = CopySearch([EmbeddingRetriever(network), ShapeRetriever()], RegisteredReranker())
    >>> search.fit(Gallery(training, patients=np.arange(6))).search(training[2:4]).candidates[:, 0].tolist()
    [2, 3]

A retriever gives indices into the gallery, -1 where it has no more. A reranker gives the ``refined`` best of them, with
their similarity, highest first:

    >>> from types import SimpleNamespace
    >>> class AllOfThem:
    ...     def fit(self, gallery, runner):
    ...         self.indices = torch.arange(len(gallery), device=runner.device)
    ...     def __call__(self, queries, runner):
    ...         return self.indices.repeat(len(queries), 1)
    >>> class PixelReranker:
    ...     refined = 2
    ...     def fit(self, gallery, runner):
    ...         self.gallery = gallery
    ...     def __call__(self, queries, candidates, kept, runner):
    ...         candidates = torch.nn.functional.pad(candidates, (0, self.refined), value=-1)  # there can be fewer
    ...         n, k = candidates.shape
    ...         images = self.gallery.images(candidates.clamp(min=0).flatten(), runner).reshape(n, k, -1)
    ...         alike = torch.cosine_similarity(images, queries.mean(1).reshape(n, 1, -1), dim=2)
    ...         best = torch.where(candidates < 0, -1.0, alike).topk(self.refined)
    ...         dims = queries.ndim - 2
    ...         return SimpleNamespace(
    ...             candidates=candidates.gather(1, best.indices),
    ...             similarity=best.values,
    ...             transforms=torch.eye(dims, dims + 1).repeat(n, self.refined, 1, 1),  # it moves nothing
    ...             profiles=best.values[..., None],  # a single band
    ...         )
    >>> search = CopySearch([AllOfThem()], PixelReranker()).fit(Gallery(training))
    >>> search.search(training[4:5]).candidates[0, 0].item()
    4

What they return is looked at, and an error names the part. To search with ``store``, a part of your own also needs a
method ``identity()`` that returns what decides its results (numbers, text, lists of these).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.search.gallery import Gallery
from monai_memo.search.matches import Matches
from monai_memo.search.placed import Placed
from monai_memo.search.runner import Runner


class Encoder(Protocol):
    """Images to vectors: any torch module, frozen and in evaluation mode. Moved to the device if it can be moved."""

    def __call__(self, images: Tensor) -> Tensor:
        """``(batch, channels, *spatial)`` in [0, 1] to ``(batch, dim)``."""
        ...


class Retriever(Protocol):
    """Finds candidates among many images, quickly."""

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Get ready to look queries up in a gallery."""
        ...

    def __call__(self, queries: Tensor, runner: Runner) -> Tensor:
        """Candidates of each query.

        Args:
            queries: ``(batch, channels, *spatial)`` in [0, 1], on the runner's device.

        Returns:
            ``(batch, k)`` int64 indices into the gallery, in any order; -1 fills rows up.
        """
        ...


@runtime_checkable
class PlacingRetriever(Protocol):
    """A retriever that also knows where its candidates lie; ``placed`` is then asked instead of the call.

    One that does a part of it on the processor can have a method ``look_up(queries: ndarray, runner)``: while a card
    works on one block of queries, it is called for the next, and ``placed`` gets what it gave as ``looked_up``.
    """

    def placed(self, queries: Tensor, runner: Runner) -> Placed:
        """Candidates of each query with their transforms; queries as in ``Retriever``."""
        ...


class Reranker(Protocol):
    """Scores candidates, slowly and well.

    A reranker that has an attribute ``takes_places`` which is true gets a further argument, ``placed``: what
    retrievers know of where the candidates lie (``Placed``), or None; and ``kept`` of shape ``(batch, m)``.

    Attributes:
        refined: candidates that are kept for each query.
    """

    refined: int

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        """Get ready to score images of a gallery."""
        ...

    def __call__(self, queries: Tensor, candidates: Tensor, kept: Tensor | None, runner: Runner) -> Scored:
        """The best candidates of each query.

        Args:
            queries: ``(batch, channels, *spatial)`` in [0, 1], on the runner's device.
            candidates: ``(batch, k)``, padded with -1.
            kept: ``(batch,)`` or ``(batch, m)`` candidates of each query that are scored in any case; None: none.
        """
        ...


class Scored(Protocol):
    """Tensors like the arrays of ``Matches``: -1 where a query has fewer candidates."""

    @property
    def candidates(self) -> Tensor:
        """``(batch, refined)``."""
        ...

    @property
    def similarity(self) -> Tensor:
        """``(batch, refined)``, highest first."""
        ...

    @property
    def transforms(self) -> Tensor:
        """``(batch, refined, dims, dims + 1)``."""
        ...

    @property
    def profiles(self) -> Tensor:
        """``(batch, refined, bands)``."""
        ...


class Search(Protocol):
    """What an audit asks of a search: ``CopySearch``, or one that looks images up turned as well."""

    def search(
        self, queries: NDArray[np.floating], store: str | Path | None = None, patients: NDArray[np.int64] | None = None
    ) -> Matches:
        """See ``CopySearch.search``."""
        ...

    def score(
        self, queries: NDArray[np.floating], candidates: NDArray[np.int64], patients: NDArray[np.int64]
    ) -> Matches:
        """See ``CopySearch.score``."""
        ...

    def describe(self) -> SearchDescription:
        """See ``CopySearch.describe``."""
        ...


class SearchDescription(TypedDict):
    """For the record of an audit.

    Attributes:
        retrievers: what finds candidates, by name of class.
        neighbours: candidates by embedding, of the query itself and of its versions each; 0 without embeddings.
        refined: candidates that are registered to the pixel.
        whole_images: whether whole images are compared as well.
        exact: whether every training image is looked at by every part of the search; keypoints apart, which are always
            looked up in an inverted file.
        own: names of retrievers and reranker that are the user's; empty for the search of an audit.
    """

    retrievers: list[str]
    neighbours: int
    refined: int
    whole_images: bool
    exact: bool
    own: list[str]
