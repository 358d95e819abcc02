# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Is a larger ``--size`` worth its cost? The same copies of large images, searched at several sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monai_memo.benchmark.scores import kind_score
from monai_memo.data.ladder import Planted, altered, chosen_levels, kinds_of
from monai_memo.detector.recipe import Recipe
from monai_memo.registration.affine import resized
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner

Images = NDArray[np.floating]


def shrunk(images: Images, size: int) -> NDArray[np.float32]:
    """``(n, 1, *spatial)`` averaged down to ``size`` along each axis."""
    shape = (size,) * (images.ndim - 2)
    parts = torch.from_numpy(np.asarray(images, dtype=np.float32)).split(64)
    return torch.cat([resized(part, shape) for part in parts]).numpy()


def compare_sizes(
    training: Images, unseen: Images, sizes: Sequence[int], per_level: int, kinds: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Time of a query and share of copies found, for each size.

    Args:
        training, unseen: ``(n, 1, *spatial)`` in [0, 1], larger than the sizes. The unseen ones give the threshold.
        sizes: to search at.
        per_level: copies of each kind and strength, planted in the large images.
        kinds: of ``data.ladder``; by default all.

    Returns:
        A row for each size: milliseconds a query on one core, true positive rates at 1 % and 0.1 % false positives,
        and those of each kind and strength at 1 %.
    """
    dims = training.ndim - 2
    rng = np.random.default_rng(0)
    levels: list[Planted] = chosen_levels(kinds_of(dims), kinds)
    chosen = np.concatenate([np.sort(rng.choice(len(training), per_level, replace=False)) for _ in levels])
    name = np.repeat([level.name for level in levels], per_level)
    copies = np.concatenate([
        altered(np.asarray(training[chosen[name == level.name]]), level, seed=1) for level in levels
    ])  # fmt: skip
    rows = []
    for size in sizes:
        torch.manual_seed(0)
        network = Recipe.named("default", dims, (size,) * dims).build_network().eval()
        search = CopySearch.default(network).fit(Gallery(shrunk(training, size)), Runner())
        queries = [shrunk(copies, size), shrunk(unseen, size)]
        start = time.process_time()
        found, negatives = (search.search(one) for one in queries)
        seconds = time.process_time() - start
        similarity, right = found.similarity[:, 0], found.candidates[:, 0] == chosen
        score = kind_score(f"{size}", similarity, negatives.similarity[:, 0], right)
        row: dict[str, Any] = {
            "size": size, "copies": len(copies), "unseen": len(unseen),
            "ms": round(1000 * seconds / (len(copies) + len(unseen)), 1), "nearest": round(float(right.mean()), 3),
        }  # fmt: skip
        for rate, tpr in score.tpr.items():
            row[f"tpr_at_{rate}"] = None if tpr is None else [round(x, 3) for x in (tpr.value, tpr.low, tpr.high)]
        threshold = np.quantile(negatives.similarity[:, 0], 0.99)
        row["kinds"] = {
            one: round(float((similarity[name == one] > threshold).mean()), 2) for one in dict.fromkeys(name)
        }
        rows.append(row)
        print({key: value for key, value in row.items() if key != "kinds"}, flush=True)
    return rows
