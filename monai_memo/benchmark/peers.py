# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Searches that others use, for comparison: flat pixel search by FAISS, phase correlation of all pairs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.benchmark.baselines import Found
from monai_memo.search.embedding_index import EmbeddingIndex

BLOCK = 256


class FlatPixels:
    """Pearson correlation of pixels where they lie, by FAISS (``IndexFlatIP``), and of mirrored queries."""

    name = "FAISS flat search of pixels"

    def __init__(self, training: NDArray[np.floating]) -> None:
        self.index = EmbeddingIndex(np.asarray(training, dtype=np.float32).reshape(len(training), -1))

    def __call__(self, queries: NDArray[np.floating]) -> Found:
        """Similarity and index of the nearest training image of each query."""
        values = np.asarray(queries, dtype=np.float32)
        sides = [values, values[..., ::-1] if values.ndim == 4 else values[:, :, ::-1]]
        found = [self.index.search(np.ascontiguousarray(side).reshape(len(side), -1)) for side in sides]
        similarity = np.stack([one[0][:, 0] for one in found])
        best = similarity.argmax(axis=0)
        rows = np.arange(len(values))
        return similarity[best, rows], np.stack([one[1][:, 0] for one in found])[best, rows]


class PhaseCorrelation:
    """Peak of the phase correlation (Kuglin and Hines 1975) of each query, also mirrored, with all training images."""

    name = "phase correlation of all pairs"

    def __init__(self, training: NDArray[np.floating]) -> None:
        self.spectra = self._spectra(torch.from_numpy(np.asarray(training, dtype=np.float32)[:, 0]))

    @staticmethod
    def _spectra(images: torch.Tensor) -> torch.Tensor:
        axes = tuple(range(1, images.ndim))
        window = torch.ones(images.shape[1:])
        for axis, length in enumerate(images.shape[1:]):
            hann = torch.hann_window(length, periodic=False)
            window = window * hann.view([length if axis == other else 1 for other in range(images.ndim - 1)])
        spectra: torch.Tensor = torch.fft.rfftn((images - images.mean(dim=axes, keepdim=True)) * window, dim=axes)
        return spectra / spectra.abs().clamp(min=1e-9)

    def __call__(self, queries: NDArray[np.floating]) -> Found:
        """Similarity and index of the nearest training image of each query."""
        images = torch.from_numpy(np.asarray(queries, dtype=np.float32)[:, 0])
        shape, axes = images.shape[1:], tuple(range(1, images.ndim))
        sides = [self._spectra(images), self._spectra(images.flip(images.ndim - 1 if images.ndim == 3 else 1))]
        similarity, nearest = np.empty(len(images)), np.empty(len(images), dtype=np.int64)
        for row in range(len(images)):
            found = []
            for part in self.spectra.split(BLOCK):
                products = (part * side[row].conj() for side in sides)
                planes = [torch.fft.irfftn(one, s=shape, dim=axes).flatten(1).amax(dim=1) for one in products]
                found.append(torch.stack(planes).amax(dim=0))
            peaks = torch.cat(found)
            similarity[row], nearest[row] = float(peaks.max()), int(peaks.argmax())
        return similarity, nearest
