# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_memo.audit.sharpness import blur_warning, fine_detail
from monai_memo.data.phantoms import chest_phantom, knee_phantom

CHEST = np.stack([chest_phantom(i, (32, 32)) for i in range(30)])
OTHERS = np.stack([chest_phantom(100 + i, (32, 32)) for i in range(30)])


def blurred(images: np.ndarray, pixels: float) -> np.ndarray:
    return np.stack([gaussian_filter(image, (0, *[pixels] * (image.ndim - 1))) for image in images])


def test_blur_takes_fine_detail_away() -> None:
    shares = [np.median(fine_detail(blurred(CHEST, pixels))) for pixels in (0, 0.7, 1.5, 3)]
    assert (np.diff(shares) < 0).all()
    assert len(fine_detail(CHEST, most=7)) == 7
    assert fine_detail(np.zeros((2, 1, 8, 8))).tolist() == [0, 0]


@pytest.mark.parametrize("volumes", [False, True])
def test_only_blurred_cohorts_are_warned_of(volumes: bool) -> None:
    real, ours = CHEST, OTHERS
    if volumes:
        images = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(40)])
        real, ours = images[:20], images[20:]
    assert blur_warning(ours, real) == []
    assert blur_warning(0.3 * ours, real) == []  # darker is not blurrier
    found = blur_warning(blurred(ours, 2), real)
    assert len(found) == 1 and "--verification False" in found[0]
