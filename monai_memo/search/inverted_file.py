# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""An inverted file: a query is compared with the vectors of the nearest few of many groups, not with all of them.

So the cost grows far slower than the gallery. What it passes over is measured in ``docs/performance.md``. On the CPU
alone: a graphics card compares with everything in less time.
"""

from __future__ import annotations

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.search.runner import Runner

FROM = 30_000  # vectors; below, comparing with all of them takes a few hundredths of a second
LISTS = 3  # groups, times the square root of the number of vectors
PROBED = 64  # groups that each query is compared with
TRAINING_VECTORS, ROUNDS = 40, 6  # for each group, to find their middles
ADDED_AT_ONCE = 4096


def pays(count: int, runner: Runner) -> bool:
    """Whether so many vectors are looked through by an inverted file."""
    return count >= FROM and not runner.waits


class InvertedFile:
    """Vectors in groups, kept in half precision.

    Args:
        vectors: ``(n, values)``.
        runner: seed of the groups; several processes use the groups of the first.
        products: compare by inner product, highest first, instead of squared distance.
        probed: groups that each query is compared with.
    """

    def __init__(self, vectors: Tensor, runner: Runner, products: bool = False, probed: int = PROBED) -> None:
        self.size, values = vectors.shape
        metric = faiss.METRIC_INNER_PRODUCT if products else faiss.METRIC_L2
        middles = faiss.IndexFlat(values, metric)
        lists = int(LISTS * self.size**0.5)
        half = faiss.ScalarQuantizer.QT_fp16
        self.file = faiss.IndexIVFScalarQuantizer(middles, values, lists, half, metric, False)
        self.file.nprobe = min(probed, lists)
        ours = runner.together({"middles": self._middles(vectors, lists, runner.seed)})[0]["middles"]
        middles.add(ours.astype(np.float32))
        self.file.train(vectors[:1].float().numpy())  # groups stand: this only marks the file as ready
        for part in vectors.split(ADDED_AT_ONCE):
            self.file.add(part.numpy().astype(np.float32))

    def _middles(self, vectors: Tensor, lists: int, seed: int) -> NDArray[np.float32]:
        wanted = min(self.size, TRAINING_VECTORS * lists)
        chosen = np.sort(np.random.default_rng([seed, 17]).choice(self.size, wanted, replace=False))
        groups = faiss.Kmeans(
            vectors.shape[1], lists, niter=ROUNDS, seed=seed + 1, min_points_per_centroid=1,
            max_points_per_centroid=TRAINING_VECTORS,
        )  # fmt: skip
        groups.train(vectors[torch.from_numpy(chosen)].float().numpy())
        return np.asarray(groups.centroids)

    def nearest(self, queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """The nearest vectors of each query, nearest first.

        Args:
            queries: ``(m, values)``.

            count: at most as many as there are vectors. Where the groups hold fewer, all groups are looked into.

        Returns:
            ``(m, count)`` inner products or squared distances, and indices.
        """
        asked = queries.float().contiguous().numpy()
        found, places = self.file.search(asked, count)
        few = np.flatnonzero((places < 0).any(axis=1))
        if len(few):
            everywhere = faiss.SearchParametersIVF(nprobe=self.file.nlist)  # type: ignore[call-arg]
            found[few], places[few] = self.file.search(asked[few], count, params=everywhere)
        return torch.from_numpy(found), torch.from_numpy(places)
