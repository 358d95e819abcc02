# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""From the embeddings of three cohorts to the similarities that are calibrated and counted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.symmetries import ViewsIndex, best_of_views
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.statistics.discoveries import conformal_p_values
from monai_memo.statistics.similarities import Similarities, neighbours_needed, on_common_scale


@dataclass(frozen=True)
class Found:
    """The training image that the search found for each of ``n`` synthetic images, and how similar it is."""

    image: NDArray[np.int64]
    similarity: NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Similarities between the cohorts, and which training image is nearest to each synthetic one.

    Attributes:
        sims: see ``statistics.similarities``.
        nearest_training: ``(n_synthetic,)`` index into the training cohort.
        training_index: to look further embeddings up, where embeddings alone are compared.
        p_values: ``(n_synthetic,)``, where some images have references of their own (see ``with_soft_part``).
        by_places: ``(n_synthetic,)`` similarity to it place by place, in all frequency bands; what counts can be that
            of the whole images instead. None where embeddings alone are compared.
        usual: ``hubs.usual_nearness`` of the synthetic images, where hubs among the patients count for less.
        found: what the search found before these did.
    """

    sims: Similarities
    nearest_training: NDArray[np.int64]
    training_index: EmbeddingIndex | None = None
    p_values: NDArray[np.float64] | None = None
    by_places: NDArray[np.float64] | None = None
    usual: float | None = None
    found: Found | None = None

    def near_many(self, tau: float) -> NDArray[np.bool_]:
        """``(n_synthetic,)`` which images are not above ``tau`` only because their patient is near to many of them."""
        counted = self.sims.synthetic_to_training
        return np.zeros(len(counted), bool) if self.found is None else (self.found.similarity > tau) & (counted <= tau)


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


def with_soft_part(
    comparison: Comparison, which: NDArray[np.bool_], softened: NDArray[np.float64], quantile: float
) -> Comparison:
    """Some synthetic images judged by references of their own.

    Args:
        which: ``(n_synthetic,)`` the soft ones.
        softened: ``(n_heldout,)`` similarity of held-out images, as soft as these, to their nearest training image.
        quantile: of tau.
    """
    sims = comparison.sims
    found, own = sims.synthetic_to_training, (softened, sims.heldout_to_training, quantile)
    p_values = conformal_p_values(found, sims.heldout_to_training, sims.heldout_patients)
    p_values[which] = np.maximum(p_values[which], conformal_p_values(found[which], softened, sims.heldout_patients))
    soft = which[sims.synthetic_neighbours]
    to_synthetic = np.where(soft, on_common_scale(sims.training_to_synthetic, *own), sims.training_to_synthetic)
    order = np.argsort(-to_synthetic, axis=1, kind="stable")
    by_places, first = comparison.by_places, comparison.found
    if first is not None:
        first = replace(first, similarity=np.where(which, on_common_scale(first.similarity, *own), first.similarity))
    return replace(
        comparison,
        sims=replace(
            sims,
            synthetic_to_training=np.where(which, on_common_scale(found, *own), found),
            training_to_synthetic=np.take_along_axis(to_synthetic, order, axis=1),
            synthetic_neighbours=np.take_along_axis(sims.synthetic_neighbours, order, axis=1),
        ),
        p_values=p_values,
        by_places=None if by_places is None else np.where(which, on_common_scale(by_places, *own), by_places),
        found=first,
    )
