# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the embeddings of three cohorts to the similarities that are calibrated and counted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.statistics.similarities import Similarities, neighbours_needed


@dataclass(frozen=True)
class Comparison:
    """Similarities between the cohorts, and which training image is nearest to each synthetic one.

    Attributes:
        sims: see ``statistics.similarities``.
        nearest_training: ``(n_synthetic,)`` index into the training cohort.
        training_index: to look further embeddings up.
    """

    sims: Similarities
    nearest_training: NDArray[np.int64]
    training_index: EmbeddingIndex


def patient_codes(patient_ids: Sequence[str]) -> NDArray[np.int64]:
    """Number the patients, in order of their ids."""
    return np.unique(np.asarray(patient_ids), return_inverse=True)[1].astype(np.int64)


def compare(
    embeddings: Mapping[str, NDArray[np.float32]], training_patients: Sequence[str], heldout_patients: Sequence[str]
) -> Comparison:
    """Search all nearest neighbours that an audit needs.

    Args:
        embeddings: ``(n, dim)`` for each of ``"training"``, ``"heldout"`` and ``"synthetic"``.
        training_patients, heldout_patients: patient id of each image.
    """
    indices = {name: EmbeddingIndex(vectors) for name, vectors in embeddings.items()}
    to_training, nearest = indices["training"].search(embeddings["synthetic"])
    heldout_to_training, _ = indices["training"].search(embeddings["heldout"])
    to_synthetic, synthetic_neighbours = indices["synthetic"].search(
        embeddings["training"], min(2, len(indices["synthetic"]))
    )
    k = neighbours_needed(len(indices["heldout"]), len(indices["synthetic"]))
    to_heldout, neighbours = indices["heldout"].search(embeddings["training"], k)
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
    return Comparison(sims, nearest[:, 0], indices["training"])
