# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole search in one cohort: embeddings, templates, shifts and squared error find candidates, then verified.

Two similarities are measured for each candidate: place by place after alignment (``verifier``), and of the whole images
(``whole_image``), brought to one scale. The greater one counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.embedding_retriever import Embed, find_candidates
from monai_memo.search.reranker import NOT_VERIFIED, Verified, Verifier, grey
from monai_memo.search.score_norm import CommonScale, WholeImages
from monai_memo.search.shifts import ShiftSearch
from monai_memo.search.templates import TemplateSearch

NEIGHBOURS, TEMPLATES, SHIFTED, REFINED, BLOCK = 24, 16, 8, 5, 256
SCALE_IMAGES, FEWEST_IMAGES = 200, 20  # training images that the common scale is measured on


class CopySearch:
    """Looks images up in a training cohort.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1] of the training cohort, may be memory-mapped.
        index: its embeddings.
        embed: images to embeddings, as those of ``index`` were made.
        patient_ids: of the training cohort; without them every image is taken for a patient.
        neighbours: candidates by the query itself, and as many by its moved and turned versions.
        refined: candidates that are aligned to the pixel.
        affine: see ``Verifier``.
        whole: compare whole images as well; from 20 training images on.
        progress: show a bar while the common scale is measured (about 200 verifications).
        seed: of the training images that the common scale is measured on.
    """

    def __init__(
        self,
        pixels: NDArray[np.floating],
        index: EmbeddingIndex,
        embed: Embed,
        patient_ids: Sequence[str] | None = None,
        neighbours: int = NEIGHBOURS,
        refined: int = REFINED,
        affine: bool = True,
        whole: bool = True,
        progress: bool = True,
        seed: int = 0,
    ) -> None:
        self.index, self.embed, self.neighbours = index, embed, neighbours
        self.verifier = Verifier(pixels, refined, affine)
        self.shifted = ShiftSearch(self.verifier.search, self.verifier.features)
        shape = pixels.shape[2:]
        patients = np.arange(len(pixels)) if patient_ids is None else np.unique(patient_ids, return_inverse=True)[1]
        blocks = [slice(start, start + BLOCK) for start in range(0, len(pixels), BLOCK)]
        with torch.inference_mode():
            self.templates = TemplateSearch((grey(pixels[block]) for block in blocks), shape)
            self.whole = WholeImages((grey(pixels[block]) for block in blocks), shape, patients)
        enough = whole and len(np.unique(patients)) >= FEWEST_IMAGES
        self.scale = self._measure_scale(progress, seed) if enough else None

    def __call__(
        self,
        queries: NDArray[np.floating],
        own: NDArray[np.float32] | None = None,
        progress: bool = True,
        store: str | Path | None = None,
    ) -> Verified:
        """Verified candidates of each query.

        Args:
            queries: ``(n, channels, *spatial)`` in [0, 1], prepared like the cohort.
            own: ``(n, dim)`` their embeddings, if they are at hand.
            store: see ``Verifier``.
        """
        candidates = self._candidates(queries, own, progress)
        return self.verify(queries, candidates, progress, store)

    def verify(
        self,
        queries: NDArray[np.floating],
        candidates: Sequence[NDArray[np.int64]],
        progress: bool = True,
        store: str | Path | None = None,
        own: NDArray[np.int64] | None = None,
        only: bool = False,
    ) -> Verified:
        """Both similarities of given candidates, and of the nearest whole image.

        Args:
            queries, candidates, store: see ``Verifier``.
            own: ``(n,)`` for training images that are looked up among others: their own indices.
            only: nothing beyond the given candidates.
        """
        if self.scale is None:
            return self.verifier(queries, candidates, progress, store)
        vectors = self._vectors(queries)
        likeness = self.whole.likeness(vectors, None if own is None else self.whole.patients[own])
        kept = None if only else likeness.nearest
        if kept is not None:
            candidates = [np.union1d(found, sure) for found, sure in zip(candidates, kept, strict=True)]
        found = self.verifier(queries, candidates, progress, store, kept)
        values = self.whole.of_candidates(vectors, found.candidates, likeness.background)
        return found.with_whole(np.where(found.candidates < 0, NOT_VERIFIED, self.scale(values)))

    def _vectors(self, queries: NDArray[np.floating]) -> NDArray[np.float32]:
        blocks = (queries[start : start + BLOCK] for start in range(0, len(queries), BLOCK))
        with torch.inference_mode():
            return np.concatenate([self.whole.vectors(grey(block)) for block in blocks])

    def _candidates(
        self, queries: NDArray[np.floating], own: NDArray[np.float32] | None, progress: bool
    ) -> list[NDArray[np.int64]]:
        candidates = find_candidates(queries, self.embed, self.index, self.neighbours, own, progress=progress)
        bar = tqdm(candidates, desc="candidates by shape", disable=None if progress else True)
        with torch.inference_mode():
            for position, found in enumerate(bar):
                query = grey(queries[position : position + 1])
                more = np.union1d(self.templates(query, TEMPLATES), self.shifted(query, SHIFTED))
                candidates[position] = np.union1d(found, more)
        return candidates

    def _measure_scale(self, progress: bool, seed: int) -> CommonScale | None:
        """Training images among those of the other patients: neither similarity has a copy to find there."""
        patients, pixels = self.whole.patients, self.verifier.pixels
        n = min(SCALE_IMAGES, len(pixels))
        chosen = np.sort(np.random.default_rng([seed, 5]).choice(len(pixels), n, replace=False))
        images = np.asarray(pixels[chosen])
        candidates = [
            found[patients[found] != patients[place]]
            for place, found in zip(chosen, self._candidates(images, None, False), strict=True)
        ]
        usable = [position for position, found in enumerate(candidates) if len(found)]
        if len(usable) < FEWEST_IMAGES:
            return None
        images, own = images[usable], patients[chosen[usable]]
        similarity = self.verifier(images, [candidates[position] for position in usable], progress).similarity[:, 0]
        return CommonScale.between(self.whole.likeness(self._vectors(images), own).value, similarity)
