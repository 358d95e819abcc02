# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.data.alterations import ALTERATIONS, VOLUMES_ONLY
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.errors import ConfigurationError

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(3)])
KNEE = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(3)])
PAIRS = {
    "rotation": (2, 10), "zoom": (0.05, 0.15), "shift": (0.02, 0.1), "gamma": (0.1, 0.5), "contrast": (0.1, 0.3),
    "window": (0.05, 0.3), "blur": (0.005, 0.03), "noise": (0.02, 0.1), "jpeg": (20, 95), "resolution": (1.5, 4),
    "erasing": (0.05, 0.25), "replacement": (0.05, 0.25), "slice_offset": (0.5, 3), "slice_thickness": (1.5, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("images", [CHEST, KNEE], ids=["2D", "3D"])
def test_more_strength_changes_more(name: str, images: np.ndarray) -> None:
    if name in VOLUMES_ONLY and images.ndim == 4:
        with pytest.raises(ConfigurationError, match="alteration of volumes"):
            ALTERATIONS[name](images, np.random.default_rng(0), np.ones(3))
        return
    changes = []
    for strength in PAIRS[name]:
        altered = ALTERATIONS[name](images, np.random.default_rng(0), np.full(3, float(strength)))
        assert altered.shape == images.shape and altered.min() >= 0 and altered.max() <= 1
        changes.append(np.abs(altered - images).mean())
    assert 0 < changes[0] < changes[1]


def test_slices_move_along_the_last_axis_only() -> None:
    volume = np.zeros((1, 1, 8, 8, 8), dtype=np.float32)
    volume[..., 4, 4, 4] = 1
    moved = ALTERATIONS["slice_offset"](volume, np.random.default_rng(0), np.array([2.0]))
    place = np.argwhere(moved[0, 0] > 0.5)[0]
    assert place[:2].tolist() == [4, 4] and abs(place[2] - 4) == 2
