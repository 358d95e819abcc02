# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Detectors to compare with: each says how similar a query is to the training cohort, and to which image of it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from monai.metrics import SSIMMetric
from monai.utils import set_determinism
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from monai_memo.data.loading import Preprocessing
from monai_memo.detector.detector import Detector
from monai_memo.detector.recipe import Recipe
from monai_memo.errors import DetectorError
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex

PAPER = "paper's recipe"
Found = tuple[NDArray[np.float64], NDArray[np.int64]]


class Scorer(Protocol):
    """``name``, and for queries ``(n, channels, *spatial)`` the similarity ``(n,)`` and the training image ``(n,)``."""

    name: str

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        """Look the queries up."""
        ...


def _flat(images: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(images, dtype=np.float32).reshape(len(images), -1)


class PixelCorrelation:
    """Pearson correlation of all pixels with each training image."""

    name = "pixel correlation"

    def __init__(self, training: NDArray[np.floating]) -> None:
        self.index = EmbeddingIndex(_flat(training))

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        similarity, nearest = self.index.search(_flat(queries))
        return similarity[:, 0], nearest[:, 0]


class SquaredError:
    """Mean squared error to each training image, negative so that higher is more similar."""

    name = "mean squared error"

    def __init__(self, training: NDArray[np.floating]) -> None:
        self.neighbours = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(_flat(training))

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        flat = _flat(queries)
        distance, nearest = self.neighbours.kneighbors(flat)
        return -(distance[:, 0] ** 2) / flat.shape[1], nearest[:, 0]


class StructuralSimilarity:
    """SSIM (MONAI) with the training images nearest by pixel correlation; all pairs would take days.

    Args:
        candidates: training images per query.
    """

    name = "SSIM"

    def __init__(self, training: NDArray[np.floating], candidates: int = 10) -> None:
        self.training, self.candidates = training, min(candidates, len(training))
        self.index = EmbeddingIndex(_flat(training))
        size = min(7, min(training.shape[2:]))
        self.metric = SSIMMetric(spatial_dims=training.ndim - 2, data_range=1.0, win_size=size, kernel_sigma=1.0)

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        _, nearest = self.index.search(_flat(queries), self.candidates)
        values = np.empty((len(queries), self.candidates))
        with torch.inference_mode():
            for row, query in enumerate(queries):
                others = torch.from_numpy(np.asarray(self.training[nearest[row]], dtype=np.float32))
                repeated = torch.from_numpy(np.asarray(query, dtype=np.float32)).expand_as(others)
                values[row] = self.metric(repeated, others).mean(dim=1).numpy()
        best = values.argmax(axis=1)
        rows = np.arange(len(queries))
        return values[rows, best], nearest[rows, best]


class EmbeddingSimilarity:
    """Pearson correlation of a detector's embeddings, without verification: the paper's way."""

    def __init__(self, name: str, detector: Detector, training: NDArray[np.floating], device: str = "cpu") -> None:
        self.name, self.detector, self.device = name, detector, device
        self.embeddings = self.embed(training)
        self.index = EmbeddingIndex(self.embeddings)

    def embed(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """``(n, dim)`` embeddings."""
        return self.detector.embed(images, device=self.device, progress=False)

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        similarity, nearest = self.index.search(self.embed(queries))
        return similarity[:, 0], nearest[:, 0]


def paper_detector(path: str | Path, preprocessing: Preprocessing) -> Detector:
    """A detector by the paper's recipe that sees the same images as the other one.

    Raises:
        DetectorError: it cannot be read, or prepares images otherwise.
    """
    paper = Detector.given(path, "paper_detector")
    if paper.preprocessing != preprocessing:
        raise DetectorError(
            f"paper_detector prepares images otherwise ({paper.preprocessing.describe()}): train it with the size and "
            "spacing of the other detector"
        )
    return paper


class VerifiedSimilarity:
    """The default: candidates by embedding, then verification."""

    def __init__(self, name: str, search: CopySearch) -> None:
        self.name, self.search = name, search

    def __call__(self, queries: NDArray[np.float32]) -> Found:
        found = self.search.search(queries)
        return found.similarity[:, 0], found.candidates[:, 0]


def random_network(preprocessing: Preprocessing, seed: int) -> Detector:
    """The default network as it is before any training."""
    set_determinism(seed)
    recipe = Recipe.named("default", preprocessing.spatial_dims, preprocessing.size, channels=preprocessing.channels)
    network = recipe.build_network()
    set_determinism(None)
    return Detector(network, recipe, preprocessing, seed, {"epochs": 0})


def pixel_baselines(training: NDArray[np.floating]) -> list[Scorer]:
    """The baselines that need no network."""
    return [PixelCorrelation(training), SquaredError(training), StructuralSimilarity(training)]
