# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of an audit with verification: synthetic and held-out images go through the same search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import Comparison, patient_codes
from monai_memo.audit.symmetries import TurnedSearch
from monai_memo.data.orientation import name_of
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import Detector
from monai_memo.sealing import fingerprint
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.reranker import Verified
from monai_memo.statistics.similarities import Similarities

SEARCH_VERSION = 2  # of candidates and verification: kept results of another one are not taken up


def search_in(
    training: PreparedCohort,
    embeddings: NDArray[np.float32],
    detector: Detector,
    batch_size: int = 64,
    device: str = "cpu",
    progress: bool = True,
) -> CopySearch:
    """The search of an audit in a training cohort, whose ``embeddings`` are the detector's."""
    return CopySearch(
        training.pixels,
        EmbeddingIndex(embeddings),
        lambda images: detector.embed(images, batch_size, device, progress=False),
        training.cohort.patient_ids,
        progress=progress,
    )


def compare_verified(
    prepared: Mapping[str, PreparedCohort],
    embeddings: Mapping[str, NDArray[np.float32]],
    search: CopySearch,
    detector_sha256: str,
    folder: str | Path,
    progress: bool = True,
) -> Comparison:
    """Verify the candidates of all synthetic and held-out images.

    A synthetic image's similarity is that of its best verified candidate. A training image's similarity to the
    synthetic cohort is the best that any synthetic image reached with it as a verified candidate; to the held-out
    cohort likewise, so that both counts of an audit keep their size-matched null.

    Args:
        prepared, embeddings: of ``"training"``, ``"heldout"`` and ``"synthetic"``.
        search: in the training cohort.
        detector_sha256: part of the names of the files in ``folder`` that keep what is done.
    """
    found: dict[str, Verified] = {}
    patients = list(prepared["training"].cohort.patient_ids)
    settings: list[Any] = [SEARCH_VERSION, search.neighbours, search.verifier.refined, search.verifier.affine, patients]
    if isinstance(search, TurnedSearch):
        settings.append([name_of(one) for one in search.symmetries])
    for name in ("heldout", "synthetic"):
        key = [detector_sha256, prepared["training"].content_sha256, prepared[name].content_sha256, *settings]
        store = Path(folder) / f"{fingerprint('verified matches of an audit', key)[:32]}.npz"
        found[name] = search(prepared[name].pixels, embeddings[name], progress, store)
    pairs = {name: (verified.candidates, verified.similarity) for name, verified in found.items()}
    sims = Similarities.from_candidates(
        pairs["synthetic"],
        pairs["heldout"],
        patient_codes(prepared["training"].cohort.patient_ids),
        patient_codes(prepared["heldout"].cohort.patient_ids),
    )
    return Comparison(sims, found["synthetic"].candidates[:, 0], search.index)
