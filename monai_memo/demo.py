# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The built-in demo: procedural phantoms, a known share of planted copies, one audit."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from monai_memo.audit.audit import Audit
from monai_memo.audit.result import AuditResult
from monai_memo.data.demo_cohorts import write_demo_cohorts

EPOCHS = 60


def run_demo(
    out: str = "demo_audit",
    modality: str = "chest",
    n_train: int = 300,
    n_heldout: int = 200,
    n_synthetic: int = 150,
    copy_share: float = 0.3,
    seed: int = 0,
    **audit_arguments: Any,
) -> tuple[AuditResult, dict[str, int]]:
    """Write phantom cohorts with planted copies, audit them, and return the result next to the truth.

    Args:
        out: folder; the images go to ``<out>/images``, the audit to ``<out>/audit``.
        modality: ``"chest"`` (2D), ``"knee"`` or ``"coronary"`` (3D).
        copy_share: share of the synthetic images that are planted copies of training images.
        audit_arguments: further arguments of the audit; 60 epochs by default, so that the demo takes minutes.

    Returns:
        The result, and the truth: ``copies`` planted and distinct training images ``memorized`` by them.
    """
    images = Path(out) / "images"
    write_demo_cohorts(images, modality, n_train, n_heldout, n_synthetic, copy_share, seed)
    with open(images / "truth.csv", newline="", encoding="utf-8") as stream:
        copied = [row["copied_from"] for row in csv.DictReader(stream) if row["copied_from"]]
    audit = Audit(
        train=str(images / "training"),
        heldout=str(images / "heldout"),
        synthetic=str(images / "synthetic"),
        out=str(Path(out) / "audit"),
        seed=seed,
        **{"epochs": EPOCHS, **audit_arguments},
    )
    return audit.run(), {"copies": len(copied), "memorized": len(set(copied))}
