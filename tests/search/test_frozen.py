# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the search found before it was batched (one query at a time, whole Fourier transforms): it stays within this.

Since then a candidate that is ahead of the others counts for more (``Matches.lead``, which adds to how well it agrees);
that is left out here. Layouts (in ``Matches.whole_image``) can raise a similarity, so that it only must not fall.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant_mixture
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import EmbeddingRetriever
from monai_memo.search.gallery import Gallery
from monai_memo.search.shape_retriever import ShapeRetriever

FROZEN = json.loads((Path(__file__).parent / "frozen.json").read_text(encoding="utf-8"))
LARGEST, USUAL = 0.03, 0.004  # differences of similarity; whole images are of even contrast since


@pytest.mark.parametrize("dims", [2, 3])
def test_the_search_finds_what_it_found_one_query_at_a_time(dims: int) -> None:
    phantom, size, n = (chest_phantom, (64, 64), 64) if dims == 2 else (knee_phantom, (32, 32, 32), 24)
    gallery = np.stack([phantom(i, size) for i in range(n)])
    copies, _ = plant_mixture(gallery[: 24 if dims == 2 else 8], seed=1)
    unseen = np.stack([phantom(1000 + i, size) for i in range(12 if dims == 2 else 4)])
    search = CopySearch([EmbeddingRetriever(lambda images: images.flatten(1)), ShapeRetriever()]).fit(Gallery(gallery))
    found, frozen = search.search(np.concatenate([copies, unseen])), FROZEN[f"{dims}d"]
    local = np.tanh(np.arctanh(found.profiles.clip(-1 + 1e-6, 1 - 1e-6)).mean(axis=2))
    similarity = np.where(found.candidates < 0, -1, np.maximum(local, found.whole_image)).max(axis=1)
    assert (found.similarity[:, 0] >= similarity - 1e-5).all()
    difference = similarity - frozen["similarity"]
    assert difference.min() > -LARGEST and np.median(np.abs(difference)) < USUAL
    assert found.candidates[: len(copies), 0].tolist() == frozen["candidates"][: len(copies)]
