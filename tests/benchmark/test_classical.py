# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.benchmark import classical
from monai_memo.benchmark.classical import Keypoints, PerceptualHash, classical_baselines
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(10)])


def test_unchanged_images_are_their_own_nearest() -> None:
    for scorer in classical_baselines(CHEST):
        similarity, nearest = scorer(CHEST[3:6])
        assert nearest.tolist() == [3, 4, 5], scorer.name
        assert similarity.dtype == np.float64
        np.testing.assert_array_equal(scorer(CHEST[3:6])[0], similarity)


@pytest.mark.parametrize("kind", ["flip", "rotation"])
def test_keypoints_follow_what_the_hash_does_not(kind: str) -> None:
    moved = plant(CHEST, kind, 0)
    right = {
        scorer.name: float((scorer(moved)[1] == np.arange(len(CHEST))).mean())
        for scorer in (Keypoints(CHEST), PerceptualHash(CHEST))
    }
    assert right["keypoints (SIFT)"] >= 0.9
    assert right["keypoints (SIFT)"] > right["perceptual hash"]


def test_flat_images_have_no_keypoints() -> None:
    flat = np.full((2, 1, 64, 64), 0.5, dtype=np.float32)
    similarity, nearest = Keypoints(CHEST)(flat)
    assert similarity.tolist() == [0.0, 0.0] and nearest.tolist() == [0, 0]
    assert Keypoints(flat)(CHEST[:2])[0].tolist() == [0.0, 0.0]


def test_volumes_and_missing_packages_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [scorer.name for scorer in classical_baselines(CHEST)] == ["perceptual hash", "keypoints (SIFT)"]
    assert classical_baselines(np.stack([knee_phantom(0, (16, 16, 16))])) == []
    monkeypatch.setattr(classical, "find_spec", lambda name: None)
    assert classical_baselines(CHEST) == []
