# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Cohorts of every modality go through detector training, audit and benchmark without a change of code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_memo.audit.audit import Audit
from monai_memo.benchmark.run import DEFAULT, Benchmark
from monai_memo.data.demo_cohorts import write_demo_cohorts
from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import PHANTOMS, VOLUMES
from monai_memo.detector.detector import Detector
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.shape_retriever import ShapeRetriever

NEW = ("ultrasound", "pet", "pet_volume", "dermoscopy")


@pytest.mark.slow
@pytest.mark.parametrize("name", NEW)
def test_detector_audit_and_benchmark(name: str, tmp_path: Path) -> None:
    size = 16 if name in VOLUMES else 32
    images = write_demo_cohorts(tmp_path / "images", name, 40, 30, 20, 0.5, size=size)
    cohorts = {"train": str(images / "training"), "heldout": str(images / "heldout")}
    result = Audit(
        **cohorts, synthetic=str(images / "synthetic"), out=str(tmp_path / "audit"), epochs=2, size=size,
        n_bootstrap=100, limit_copies=0, gallery=1, progress=False,
    ).run()  # fmt: skip
    truth = (images / "truth.csv").read_text().splitlines()[1:]
    copied = {line.split(",")[0]: line.split(",")[1] for line in truth if line.split(",")[1]}
    right = [m.copy and m.nearest_training == copied[m.synthetic] for m in result.matches if m.synthetic in copied]
    assert len(right) == 10 and np.mean(right) >= 0.8
    assert np.mean([match.copy for match in result.matches if match.synthetic not in copied]) <= 0.3
    detector = tmp_path / "audit" / "detector.pt"
    assert Detector.load(detector).preprocessing.channels == (3 if name == "dermoscopy" else 1)
    record = Benchmark(
        train=cohorts["train"], negatives=cohorts["heldout"], out=str(tmp_path / "benchmark"), detector=str(detector),
        per_level=4, kinds=["flip", "noise"], baselines=False, source_factor=1, progress=False,
    ).run()  # fmt: skip
    scores = {score["kind"]: score["auc"]["value"] for score in record["detectors"][DEFAULT]["scores"]}
    assert scores["flip"] > 0.95


@pytest.mark.parametrize("name", ["ultrasound", "pet"])
def test_copies_lie_above_unseen_patients(name: str) -> None:
    """Equal sectors and black surroundings make no pairs alike, and speckle hides no copy."""
    make, size = PHANTOMS[name], (48, 48)
    gallery = np.stack([make(i, size) for i in range(30)])
    unseen = np.stack([make(1000 + i, size) for i in range(20)])
    search = CopySearch([ShapeRetriever()]).fit(Gallery(gallery))
    highest = search.search(unseen).similarity[:, 0].max()
    for kind, strength in (("flip", 0), ("rotation", 10), ("noise", 0.08), ("gamma", 0.5)):
        found = search.search(altered(gallery[:6], Planted(kind, float(strength)), 1))
        assert (found.candidates[:, 0] == np.arange(6)).all() and (found.similarity[:, 0] > highest).all(), kind
