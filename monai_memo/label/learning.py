# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Fine-tune the audit's detector on what raters have decided, and score pairs with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_memo.data.cohort import CohortImage
from monai_memo.data.prepared import prepare
from monai_memo.detector.detector import Detector
from monai_memo.detector.fine_tuning import fine_tune
from monai_memo.errors import ConfigurationError, UnusableImageError
from monai_memo.label.analysis import DEFINITIONS, decision
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.ratings import Entry
from monai_memo.label.study import Study
from monai_memo.workspace.working_folder import Workspace

FINE_TUNED = Path("detector") / "detector.pt"


def decisions(study: Study, history: Mapping[str, Sequence[Entry]]) -> dict[str, bool]:
    """What raters decided on each pair, where they did: does the synthetic image show the training patient?"""
    found = {}
    for pair_id in study.by_id:
        decided = decision(history.get(pair_id, []), DEFINITIONS["copy_or_same_patient"])
        if decided is not None:
            found[pair_id] = decided
    return found


def fine_tune_on_ratings(
    audit: AuditFolder,
    study: Study,
    history: Mapping[str, Sequence[Entry]],
    epochs: int = 10,
    learning_rate: float = 1e-4,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write ``AUDIT/review/detector/detector.pt``; the audit's own detector stays.

    Returns:
        What it learned from: numbers of confirmed copies and novel images, and the hash of the new detector.

    Raises:
        ConfigurationError: an argument out of range.
        TrainingError: nothing decided yet, or too few training images.
    """
    if isinstance(epochs, bool) or not isinstance(epochs, int) or not 1 <= epochs <= 1000:
        raise ConfigurationError(f"epochs must be a whole number from 1 to 1000, got {epochs!r}")
    if isinstance(learning_rate, bool) or not isinstance(learning_rate, int | float) or not 0 < learning_rate <= 1:
        raise ConfigurationError(f"learning_rate must lie between 0 and 1, got {learning_rate!r}")
    detector = Detector.load(audit.folder / "detector.pt")
    workspace = Workspace(audit.review, "fine-tuning").open()
    prepared = prepare(audit.cohort("training"), detector.preprocessing, workspace.path / "pixels", progress=False)
    position = {image.image_id: i for i, image in enumerate(prepared.cohort.images)}
    images = audit.images("synthetic")
    partners: dict[int, NDArray[np.floating]] = {}
    novel: list[NDArray[np.floating]] = []
    for pair_id, is_copy in decisions(study, history).items():
        pair = study.by_id[pair_id]
        try:
            pixels = detector.preprocessing(images[pair.synthetic])
        except (KeyError, UnusableImageError):
            continue  # gone since it was rated
        if is_copy and pair.training in position:
            partners[position[pair.training]] = pixels
        elif not is_copy:
            novel.append(pixels)
    tuned = fine_tune(
        detector,
        prepared.pixels,
        partners,
        np.stack(novel) if novel else None,
        epochs=epochs,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        folder=workspace.path / "training",
    )
    tuned.save(audit.review / FINE_TUNED)
    workspace.clear()
    return {"confirmed_copies": len(partners), "confirmed_novel": len(novel), "detector": tuned.sha256[:16]}


def similarities_with(
    detector: Detector, study: Study, images: Mapping[str, Mapping[str, CohortImage]]
) -> dict[str, float]:
    """Similarity of each pair that can still be read, by another detector than the audit's.

    Embeddings alone: what verification measures of a given pair hardly depends on the detector, and would be
    the audit's similarity again.
    """
    found: dict[str, float] = {}
    for pair in study.pairs:
        try:
            arrays = [
                detector.preprocessing(images[name][image_id])
                for name, image_id in (("synthetic", pair.synthetic), ("training", pair.training))
            ]
        except (KeyError, UnusableImageError):
            continue
        first, second = detector.embed(np.stack(arrays), progress=False)
        found[pair.pair_id] = float(first @ second)
    return found
