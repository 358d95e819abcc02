# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train task: the detector learns from what raters have decided."""

from __future__ import annotations

from typing import Any

import torch
from monailabel.interfaces.tasks.train import TrainTask

from monai_memo.errors import ConfigurationError
from monai_memo.label.audit_folder import AuditFolder
from monai_memo.label.learning import fine_tune_on_ratings
from monai_memo.label.server.datastore import ReviewDatastore


class FineTuneTask(TrainTask):
    """Fine-tune the audit's detector; the result is ``AUDIT/review/detector/detector.pt``."""

    def __init__(self, audit: AuditFolder) -> None:
        super().__init__("Fine-tune the detector on confirmed copies and novel images")
        self.audit = audit

    def config(self) -> dict[str, Any]:
        return {"epochs": 10, "learning_rate": 1e-4, "seed": 0}

    def __call__(self, request: dict[str, Any], datastore: ReviewDatastore) -> dict[str, Any]:
        """Answers what it learned from.

        Args:
            request: ``epochs``, ``learning_rate``, ``seed``, ``device``.
        """
        settings = {name: request.get(name, default) for name, default in self.config().items()}
        device = str(request.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
        if not device.startswith(("cpu", "cuda")):
            raise ConfigurationError(f"device must be cpu or cuda, got {device!r}")
        return fine_tune_on_ratings(self.audit, datastore.study, datastore.history(), device=device, **settings)
