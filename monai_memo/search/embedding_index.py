# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Exact nearest-neighbour search by Pearson correlation, on FAISS."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from monai_memo.files import write_with

Floats32 = NDArray[np.float32]
Integers = NDArray[np.int64]


def normalise(embeddings: NDArray[np.floating]) -> Floats32:
    """Centre each embedding over its components and scale it to length 1.

    The inner product of two such vectors is the Pearson correlation of the originals.

    Args:
        embeddings: ``(n, dim)``, finite.

    Returns:
        ``(n, dim)`` float32, contiguous.

    Raises:
        ValueError: not two-dimensional, not finite, or an embedding without any variation.
    """
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings must have shape (n, dim), got {embeddings.shape}")
    values = np.asarray(embeddings, dtype=np.float64)
    values = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    if not np.isfinite(length).all():
        raise ValueError(f"embedding {int(np.argmin(np.isfinite(length).ravel()))} holds NaN or infinity")
    if (length < 1e-12).any():
        raise ValueError(f"embedding {int(np.argmin(length.ravel()))} is constant: it correlates with nothing")
    return np.ascontiguousarray(values / length, dtype=np.float32)


class EmbeddingIndex:
    """All embeddings of one cohort, searchable by similarity.

    The search is exact (``IndexFlatIP``): an approximate index would miss copies without saying so.

    Args:
        embeddings: ``(n, dim)`` candidates, normalised here.

    Example:
        >>> import numpy as np
        >>> index = EmbeddingIndex(np.eye(3, 4))
        >>> similarity, nearest = index.search(np.array([[0.0, 2.0, 0.0, 0.0]]))
        >>> nearest.tolist(), round(float(similarity[0, 0]), 6)
        ([[1]], 1.0)
    """

    def __init__(self, embeddings: NDArray[np.floating]) -> None:
        if len(embeddings) == 0:
            raise ValueError("an index needs at least one embedding")
        vectors = normalise(embeddings)
        self._index: faiss.Index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(vectors)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def search(
        self, queries: NDArray[np.floating], k: int = 1, block: int = 4096
    ) -> tuple[NDArray[np.float64], Integers]:
        """The ``k`` most similar candidates of each query.

        Queries are worked through in blocks, so that beyond the result memory does not grow with their number.

        Args:
            queries: ``(n, dim)``.
            k: neighbours per query, at most ``len(self)``.
            block: queries per call of FAISS.

        Returns:
            similarity ``(n, k)``, highest first, between -1 and 1; index of the candidate ``(n, k)``.
        """
        if not 1 <= k <= len(self):
            raise ValueError(f"k must lie between 1 and {len(self)} (the size of the index), got {k}")
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries must have shape (n, {self.dim}), got {queries.shape}")
        similarity = np.empty((len(queries), k), dtype=np.float64)
        nearest = np.empty((len(queries), k), dtype=np.int64)
        for start in range(0, len(queries), block):
            rows = slice(start, start + block)
            similarity[rows], nearest[rows] = self._index.search(normalise(queries[rows]), k)
        return np.clip(similarity, -1.0, 1.0), nearest

    def save(self, path: str | Path) -> Path:
        """Write the index to one file, atomically."""
        return write_with(path, lambda temporary: faiss.write_index(self._index, str(temporary)))

    @classmethod
    def load(cls, path: str | Path) -> EmbeddingIndex:
        """Read an index that ``save`` wrote.

        Raises:
            FileNotFoundError: no such file.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no embedding index at {path}")
        self = cls.__new__(cls)
        self._index = faiss.read_index(str(path))
        return self
