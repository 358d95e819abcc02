# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How well the cohorts are told apart without any model: then a score of a model says nothing of its memory.

Blind baselines beat published membership attacks where members and others were collected differently (Das, Zhang,
Tramèr, arXiv 2406.16201). Held-out patients of the same source are not told from training patients by their pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from monai_memo.files import rows_at_once
from monai_memo.generators.conditions import ConditionCode

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


def condition_statistics(told: Mapping[str, Tensor], code: ConditionCode) -> Floats:
    """What a network is told of images as ``(n, numbers)``: a place for each class, and the tokens of numbers."""
    parts = [rows.flatten(1) for name, rows in told.items() if name == "context"]
    if "class_labels" in told:
        parts.append(functional.one_hot(told["class_labels"], code.num_class_embeds or -1))
    return np.asarray(torch.cat(parts, dim=1).double().numpy())


def blind_scores(
    members: Floats, others: Floats, patients: tuple[Sequence[str], Sequence[str]], seed: int = 0
) -> tuple[Floats, Floats]:
    """What a classifier of the cohorts says of each image that it was not fitted on; folds are of patients.

    Args:
        members, others: ``pixel_statistics`` or ``condition_statistics`` of both cohorts.
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
