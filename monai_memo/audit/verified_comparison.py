# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The comparison of an audit with verification: synthetic and held-out images go through the same search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.comparison import Comparison, Found, patient_codes
from monai_memo.audit.symmetries import TurnedSearch
from monai_memo.data.orientation import name_of
from monai_memo.data.prepared import PreparedCohort
from monai_memo.detector.detector import Detector
from monai_memo.sealing import fingerprint
from monai_memo.search.copy_search import VERSION, CopySearch, MakeSearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.matches import Matches
from monai_memo.search.protocols import Search
from monai_memo.search.runner import Runner
from monai_memo.statistics.hubs import usual_nearness, without_hubs
from monai_memo.statistics.own_references import rows_looked_through
from monai_memo.statistics.similarities import Similarities


def gallery_of(training: PreparedCohort, embeddings: NDArray[np.float32]) -> Gallery:
    """The images of a training cohort, to be looked up among; ``embeddings`` are the detector's."""
    return Gallery.of(training.pixels, training.cohort.patient_ids, embeddings)


def gallery_looked_through(
    heldout: PreparedCohort, embeddings: NDArray[np.float32], n_training: int, seed: int
) -> Gallery:
    """Held-out images for ``OwnReferences``: of whole patients, no more than there are training images.

    Args:
        embeddings: of all held-out images.
        n_training: number of training images.
        seed: of the draw.
    """
    patients = patient_codes(heldout.cohort.patient_ids)
    rows = rows_looked_through(patients, n_training, seed)
    return Gallery(np.asarray(heldout.pixels)[rows], patients[rows], embeddings[rows])


def search_in(
    training: PreparedCohort,
    embeddings: NDArray[np.float32],
    detector: Detector,
    runner: Runner | None = None,
    batch_size: int = 64,
    make: MakeSearch = CopySearch.default,
) -> CopySearch:
    """The search of an audit in a training cohort, whose ``embeddings`` are the detector's."""
    return make(detector.network, batch_size).fit(gallery_of(training, embeddings), runner)


def lowered(found: Matches, patients: NDArray[np.int64]) -> Matches:
    """What samples found in a gallery of these patients, without what shows for many of them (``statistics.hubs``)."""
    return replace(found, similarity=without_hubs(found.candidates, found.similarity, patients)).in_order()


def compare_verified(
    prepared: Mapping[str, PreparedCohort],
    search: Search,
    detector_sha256: str,
    folder: str | Path,
    hubs: bool = False,
) -> Comparison:
    """Verify the candidates of all synthetic and held-out images.

    A synthetic image's similarity is that of its best verified candidate. A training image's similarity to the
    synthetic cohort is the best that any synthetic image reached with it as a verified candidate; to the held-out
    cohort likewise, so that both counts of an audit keep their size-matched null.

    Args:
        prepared: of ``"training"``, ``"heldout"`` and ``"synthetic"``.
        search: in the training cohort.
        detector_sha256: part of the names of the files in ``folder`` that keep what is done.
        hubs: take off what patients show who are near to many synthetic images, as ``OwnReferences.among`` does.
    """
    found: dict[str, Matches] = {}
    patients = list(prepared["training"].cohort.patient_ids)
    settings: list[Any] = [VERSION, dict(search.describe()), patients]
    if isinstance(search, TurnedSearch):
        settings.append([name_of(one) for one in search.symmetries])
    for name in ("heldout", "synthetic"):
        key = [detector_sha256, prepared["training"].content_sha256, prepared[name].content_sha256, *settings]
        store = Path(folder) / f"{fingerprint('verified matches of an audit', key)[:32]}.npz"
        found[name] = search.search(prepared[name].pixels, store)
    usual = first = None
    if hubs:
        usual = usual_nearness(found["synthetic"].similarity)
        first = Found(found["synthetic"].candidates[:, 0], found["synthetic"].similarity[:, 0])
        found["synthetic"] = lowered(found["synthetic"], patient_codes(patients))
    pairs = {name: (matches.candidates, matches.similarity) for name, matches in found.items()}
    sims = Similarities.from_candidates(
        pairs["synthetic"],
        pairs["heldout"],
        patient_codes(prepared["training"].cohort.patient_ids),
        patient_codes(prepared["heldout"].cohort.patient_ids),
    )
    best = found["synthetic"]
    return Comparison(sims, best.candidates[:, 0], by_places=best.by_places(), usual=usual, found=first)
