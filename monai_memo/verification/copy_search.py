# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole search in one cohort: embeddings and templates find candidates, alignment and comparison verify them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.verification.candidates import Embed, find_candidates
from monai_memo.verification.templates import TemplateSearch
from monai_memo.verification.verifier import Verified, Verifier, grey

NEIGHBOURS, TEMPLATES, REFINED, BLOCK = 16, 12, 5, 256


class CopySearch:
    """Looks images up in a training cohort.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1] of the training cohort, may be memory-mapped.
        index: its embeddings.
        embed: images to embeddings, as those of ``index`` were made.
        neighbours: candidates by the query itself, and as many by its moved and turned versions.
        refined: candidates that are aligned to the pixel.
        affine: see ``Verifier``.
    """

    def __init__(
        self,
        pixels: NDArray[np.floating],
        index: EmbeddingIndex,
        embed: Embed,
        neighbours: int = NEIGHBOURS,
        refined: int = REFINED,
        affine: bool = True,
    ) -> None:
        self.index, self.embed, self.neighbours = index, embed, neighbours
        self.verifier = Verifier(pixels, refined, affine)
        blocks = (grey(pixels[start : start + BLOCK]) for start in range(0, len(pixels), BLOCK))
        with torch.inference_mode():
            self.templates = TemplateSearch(blocks, pixels.shape[2:])

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
        candidates = find_candidates(queries, self.embed, self.index, self.neighbours, own, progress=progress)
        with torch.inference_mode():
            for position, found in enumerate(candidates):
                more = self.templates(grey(queries[position : position + 1]), TEMPLATES)
                candidates[position] = np.union1d(found, more)
        return self.verifier(queries, candidates, progress, store)
