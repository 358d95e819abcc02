# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A record to render, without running an audit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from monai_memo.audit.result import SCHEMA_VERSION, AuditResult, CohortSummary, Count, Estimate, Match
from monai_memo.audit.verdict import verdict_for


def count(value: int, of: int, low: float, high: float) -> Count:
    return Count(value, low, high, of, Estimate(value / of, low / of, high / of))


def summary(name: str, **further: Any) -> CohortSummary:
    values: dict[str, Any] = {
        "source": f"/hospital/{name}",
        "n_images": 100,
        "n_patients": 90,
        "patients_known": True,
        "skipped": [],
        "notes": [],
        "repeated": 0,
        "content_sha256": "ab" * 32,
    }
    return CohortSummary(**{**values, **further})


@pytest.fixture
def record() -> AuditResult:
    """31 of 100 synthetic images are copies; names hold characters that HTML has to escape."""
    rng = np.random.default_rng(0)
    copies, control, excess = count(31, 100, 24, 39), Estimate(0.05, 0.02, 0.09), Estimate(0.26, 0.18, 0.34)
    sensitivity = {"planted": 50, "found": 45, "rate": Estimate(0.9, 0.79, 0.96), "by_kind": {"flip": 1.0, "blur": 0.8}}
    matches = [
        Match(
            f"<script>alert({i})</script>.png", f"anna & bert {i % 3}.png", f"anna {i % 3}", 0.9 - i / 100, 0.7, i < 3
        )
        for i in range(6)
    ]
    return AuditResult(
        schema_version=SCHEMA_VERSION,
        n_synthetic=100,
        n_train=100,
        n_heldout=100,
        tau=Estimate(0.7, 0.68, 0.73),
        tau_memorized=Estimate(0.69, 0.66, 0.72),
        n_copies=copies,
        n_mem=count(28, 100, 20, 37),
        n_mem_patients=count(27, 90, 19, 35),
        control_copies=control,
        control_mem=Estimate(0.05, 0.03, 0.07),
        excess_copies=excess,
        excess_mem=Estimate(0.23, 0.15, 0.32),
        sensitivity=sensitivity,
        calibration={
            "mode": "size_matched",
            "quantile": 0.95,
            "confidence": 0.95,
            "n_bootstrap": 1000,
            "explanation": "Size-matched calibration.",
        },
        verdict=verdict_for(copies, control, excess, sensitivity),
        cohorts={
            "training": summary("training", skipped=[{"image": "anna's <b>.png", "reason": "unreadable"}]),
            "heldout": summary("heldout", patients_known=False),
            "synthetic": summary("synthetic", notes=["2 images converted from colour"], repeated=1),
        },
        detector={
            "recipe": "default",
            "sha256": "cd" * 32,
            "views": "Two images count as the same if ...",
            "training": {"epochs": 3},
            "spatial_dims": 2,
            "channels": 1,
            "image_size": [64, 64],
            "trained_for_this_audit": True,
        },
        preprocessing={"spatial_dims": 2, "sentence": "Every image was scaled."},
        configuration={
            "train": "/hospital/training",
            "heldout": "/hospital/heldout",
            "synthetic": "/hospital/synthetic",
            "out": "/hospital/out",
            "detector": None,
            "recipe": "default",
            "size": [64, 64],
            "seed": 4,
            "allow_overlap": True,
            "patient_pattern": "anna",
        },
        software={"python": "3.11", "torch": "2"},
        warnings=[
            "1 patient in both the training and the heldout cohort: anna.",
            "Patients are not known: so be careful.",
        ],
        distributions={
            name: sorted(rng.uniform(0.3, 0.9, 50).round(6).tolist())
            for name in ("synthetic_to_training", "heldout_to_training", "training_to_heldout", "training_to_synthetic")
        },
        timing={"created": "2026-01-01T00:00:00+00:00", "seconds": {"total": 1.0}},
        matches=matches,
    )


@pytest.fixture
def quiet_record(record: AuditResult) -> AuditResult:
    """Nothing found among 1,000."""
    copies, control = count(0, 1000, 0, 3), Estimate(0.002, 0.0, 0.004)
    excess = Estimate(-0.002, -0.004, 0.003)
    verdict = verdict_for(copies, control, excess, record.sensitivity)
    return replace(
        record, n_synthetic=1000, n_copies=copies, control_copies=control, excess_copies=excess, verdict=verdict
    )
