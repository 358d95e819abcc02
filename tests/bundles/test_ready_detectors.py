# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant
from monai_memo.detector.detector import Detector
from monai_memo.search.embedding_index import EmbeddingIndex

MODELS = Path(__file__).parents[2] / "bundles" / "memorization_detection" / "models"
READY = {"chest_xray_64.pt": (2, (64, 64), chest_phantom), "hippocampus_mri_32.pt": (3, (32, 32, 32), knee_phantom)}


def test_every_shipped_detector_is_described() -> None:
    assert {path.name for path in MODELS.glob("*.pt")} == set(READY)
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    for name in READY:
        assert f"## {name}" in text and Detector.load(MODELS / name).sha256[:16] in text
        assert (MODELS / name).stat().st_size < 5e6
    assert text.count("Licence of the data") == len(READY)


@pytest.mark.parametrize("name", READY)
def test_a_first_audit_needs_no_training(name: str) -> None:
    """On images that the detector has never seen the like of: weakly altered copies still find their original."""
    dims, size, phantom = READY[name]
    detector = Detector.load(MODELS / name)
    detector.check_fits(dims, 1, size)
    images = np.stack([phantom(patient, size) for patient in range(12)])
    index = EmbeddingIndex(detector.embed(images, progress=False))
    copies = detector.embed(plant(images, "contrast", seed=0), progress=False)
    assert (index.search(copies)[1][:, 0] == np.arange(12)).mean() > 0.8
