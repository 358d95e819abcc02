# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the embeddings of three cohorts to the similarities that are calibrated and counted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.symmetries import ViewsIndex, best_of_views
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.statistics.similarities import Similarities, neighbours_needed


@dataclass(frozen=True)
class Comparison:
    """Similarities between the cohorts, and which training image is nearest to each synthetic one.

    Attributes:
        sims: see ``statistics.similarities``.
        nearest_training: ``(n_synthetic,)`` index into the training cohort.
        training_index: to look further embeddings up, where embeddings alone are compared.
    """

    sims: Similarities
    nearest_training: NDArray[np.int64]
    training_index: EmbeddingIndex | None = None


def patient_codes(patient_ids: Sequence[str]) -> NDArray[np.int64]:
    """Number the patients, in order of their ids."""
    return np.unique(np.asarray(patient_ids), return_inverse=True)[1].astype(np.int64)


def compare(
    embeddings: Mapping[str, NDArray[np.float32]], training_patients: Sequence[str], heldout_patients: Sequence[str]
) -> Comparison:
    """Search all nearest neighbours that an audit needs.

    Args:
        embeddings: ``(n, dim)`` for each of ``"training"``, ``"heldout"`` and ``"synthetic"``; of the last two also
            ``(symmetries, n, dim)``: images are as similar as under the best of several symmetries.
        training_patients, heldout_patients: patient id of each image.
    """
    views = {name: vectors[None] if vectors.ndim == 2 else vectors for name, vectors in embeddings.items()}
    index = EmbeddingIndex(embeddings["training"])
    synthetic, heldout = ViewsIndex(views["synthetic"]), ViewsIndex(views["heldout"])
    to_training, nearest = best_of_views(index, views["synthetic"])
    heldout_to_training, _ = best_of_views(index, views["heldout"])
    to_synthetic, synthetic_neighbours = synthetic.search(embeddings["training"], min(2, len(synthetic)))
    k = neighbours_needed(len(heldout), len(synthetic))
    to_heldout, neighbours = heldout.search(embeddings["training"], k)
    sims = Similarities(
        synthetic_to_training=to_training[:, 0],
        heldout_to_training=heldout_to_training[:, 0],
        training_to_synthetic=to_synthetic,
        synthetic_neighbours=synthetic_neighbours,
        training_to_heldout=to_heldout,
        heldout_neighbours=neighbours,
        training_patients=patient_codes(training_patients),
        heldout_patients=patient_codes(heldout_patients),
    )
    return Comparison(sims, nearest[:, 0], index)
