# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How well the cohorts are told apart without any model: then a score of a model says nothing of its memory.

Blind baselines beat published membership attacks where members and others were collected differently (Das, Zhang,
Tramèr, arXiv 2406.16201). Held-out patients of the same source are not told from training patients by their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from monai_memo.files import rows_at_once

FOLDS, QUANTILES, THUMBNAIL, BLOCK = 5, 9, 4, 256
PLACES = 50_000  # of an image whose brightness is sorted
Floats = NDArray[np.float64]


def pixel_statistics(images: NDArray[np.floating]) -> Floats:
    """Brightness, contrast, fine detail and coarse layout of images ``(n, channels, *spatial)``: ``(n, numbers)``."""
    rows = []
    size = max(1, min(BLOCK, rows_at_once(images.shape[1:])))
    for start in range(0, len(images), size):
        part = torch.from_numpy(np.asarray(images[start : start + size], dtype=np.float32)).mean(dim=1)
        flat = part.flatten(1)
        sample = flat[:, :: max(1, flat.shape[1] // PLACES)]
        levels = torch.linspace(0.02, 0.98, QUANTILES)
        steps = [part.diff(dim=axis).abs().flatten(1) for axis in range(1, part.ndim)]
        pool = functional.adaptive_avg_pool2d if part.ndim == 3 else functional.adaptive_avg_pool3d
        coarse = pool(part[:, None], THUMBNAIL).flatten(1)
        rows.append(torch.cat([
            flat.mean(dim=1, keepdim=True), flat.std(dim=1, keepdim=True), sample.quantile(levels, dim=1).T,
            *(step.mean(dim=1, keepdim=True) for step in steps),
            *(step.square().mean(dim=1, keepdim=True).sqrt() for step in steps), coarse,
        ], dim=1).double().numpy())  # fmt: skip
    return np.concatenate(rows)


def blind_scores(
    members: Floats, others: Floats, patients: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> tuple[Floats, Floats]:
    """What a classifier of the cohorts says of each image that it was not fitted on; folds are of patients.

    Args:
        members, others: ``pixel_statistics`` of both cohorts.
        patients: of their images.

    Returns:
        A score of each image of either cohort, higher for the training cohort.
    """
    rng = np.random.default_rng([seed, 31])
    both, labels = np.concatenate([members, others]), np.repeat([1, 0], [len(members), len(others)])
    folds = np.concatenate([_folds(names, rng) for names in patients])
    scores = np.zeros(len(both))
    for fold in range(FOLDS):
        left_out = folds == fold
        kept = ~left_out
        if not left_out.any() or len(np.unique(labels[kept])) < 2:
            continue
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
        classifier.fit(both[kept], labels[kept])
        scores[left_out] = classifier.decision_function(both[left_out])
    return scores[: len(members)], scores[len(members) :]


def _folds(patients: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    names, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    dealt = rng.permutation(len(names)) % FOLDS
    return np.asarray(dealt[codes], dtype=np.int64)
