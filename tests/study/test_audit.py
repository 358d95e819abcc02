# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Tests of the audit of one run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.cohort import Cohort
from monai_memo.data.prepared import PreparedCohort, prepare
from monai_memo.detector.detector import Detector
from monai_memo.study.audit import RunAudit


@pytest.fixture
def prepared(cohorts: Path, detector_file: Path, tmp_path: Path) -> dict[str, PreparedCohort]:
    detector = Detector.load(detector_file)
    return {
        name: prepare(Cohort.from_source(str(cohorts / name), name), detector.preprocessing, tmp_path / name)
        for name in ("training", "heldout")
    }


def test_samples_that_are_near_to_everybody_raise_the_threshold(
    prepared: dict[str, PreparedCohort], detector_file: Path, tmp_path: Path
) -> None:
    audit = RunAudit(Detector.load(detector_file), prepared["heldout"], tmp_path, n_bootstrap=100, progress=False)
    training, unseen = (np.asarray(prepared[name].pixels, dtype=np.float32) for name in ("training", "heldout"))
    rng = np.random.default_rng(0)
    of_many = np.stack([rng.permutation(np.concatenate([training, unseen]))[:35].mean(axis=0) for _ in range(20)])

    found = audit(of_many, prepared["training"], 0, tmp_path / "pairs.png")["rates"]
    assert found["size_matched"]["tau"][0] > found["size_matched"]["tau_control"] + 0.01
    for other in ("size_matched_embeddings", "paper"):
        assert found[other]["tau"][0] == found[other]["tau_control"], "by the embeddings alone nothing is raised"


def test_copies_do_not_raise_their_own_threshold(
    prepared: dict[str, PreparedCohort], detector_file: Path, tmp_path: Path
) -> None:
    audit = RunAudit(Detector.load(detector_file), prepared["heldout"], tmp_path, n_bootstrap=100, progress=False)
    copies = np.asarray(prepared["training"].pixels, dtype=np.float32)[:20]

    found = audit(copies, prepared["training"], 0, tmp_path / "pairs.png")["rates"]["size_matched"]
    assert found["n_copies"] == 20
    assert found["tau"][0] < 0.99
