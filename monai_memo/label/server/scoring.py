# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Similarity and certainty of each pair, written where MONAI Label keeps what it knows of an image."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.scoring import ScoringMethod

from monai_memo.detector.detector import Detector
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.learning import FINE_TUNED, similarities_with
from monai_memo.label.server.datastore import ReviewDatastore


class SimilarityScoring(ScoringMethod):
    """Write ``similarity`` and ``certainty`` of the audit, or ``similarity_fine_tuned`` of a detector trained since.

    While a review is blind the scores are kept in the datastore's file and are not answered.
    """

    def __init__(self, audit: AuditFolder) -> None:
        super().__init__("Similarity of each pair, and how certain the detector's call is")
        self.audit = audit

    def __call__(self, request: dict[str, Any], datastore: ReviewDatastore) -> dict[str, Any]:
        """Answers how many pairs were scored.

        Args:
            request: ``detector``: ``"audit"`` (default) or ``"fine_tuned"``.
        """
        which = request.get("detector", "audit")
        pairs = datastore.study.pairs
        if which == "audit":
            scores = {pair.pair_id: {"similarity": pair.similarity, "certainty": pair.certainty} for pair in pairs}
        elif which == "fine_tuned":
            file = self.audit.review / FINE_TUNED
            if not file.exists():
                raise HTTPException(409, "no detector has been fine-tuned yet: run the train task first")
            images = {name: self.audit.images(name) for name in ("synthetic", "training")}
            found = similarities_with(Detector.load(file), datastore.study, images)
            scores = {pair_id: {"similarity_fine_tuned": round(value, 6)} for pair_id, value in found.items()}
        else:
            raise HTTPException(400, f"detector must be audit or fine_tuned, got {str(which)[:40]!r}")
        datastore.set_scores(scores)
        return {"scored": len(scores)}
