# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One process of ``performance --part query``: run as code, with this or an earlier state of the package on the path.

Every line that comes in is answered by the CPU milliseconds that a query took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch


def searcher(folder: Path, dims: int, size: int) -> Callable[[np.ndarray], object]:
    """The search as this state of the package has it; its common scale is measured on few images, to start quickly."""
    from monai_memo.detector.recipe import Recipe

    gallery = np.load(folder / "gallery.npy").astype(np.float32)
    torch.manual_seed(0)
    recipe = Recipe.named("default", dims, (size,) * dims)
    network = recipe.build_network().eval()
    try:
        from monai_memo.search import copy_search
    except ImportError:  # until the search was batched
        from monai_memo.data.loading import Preprocessing
        from monai_memo.detector.detector import Detector
        from monai_memo.search.embedding_index import EmbeddingIndex

        before = import_module("monai_memo.verification.copy_search")
        setattr(before, "SCALE_IMAGES", 24)  # noqa: B010
        detector = Detector(network, recipe, Preprocessing(dims, (size,) * dims), 0, {})

        def embed(images: np.ndarray) -> np.ndarray:
            return detector.embed(images, progress=False)

        search = before.CopySearch(gallery, EmbeddingIndex(embed(gallery)), embed, progress=False)

        def quiet(queries: np.ndarray) -> object:
            return search(queries, progress=False)

        return quiet
    from monai_memo.search.gallery import Gallery

    copy_search.SCALE_IMAGES = 24
    return copy_search.CopySearch.default(network).fit(Gallery(gallery)).search


def main() -> None:
    """Serve."""
    torch.set_num_threads(1)
    folder, dims, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    search, queries = searcher(folder, dims, size), np.load(folder / "queries.npy")
    search(queries[:16])  # what is made once is made now
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        search(queries)
        print(1000 * (time.process_time() - start) / len(queries), flush=True)


if __name__ == "__main__":
    main()
