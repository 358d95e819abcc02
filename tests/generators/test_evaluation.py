# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from monai_memo.generators.evaluation import sheet


def test_sheet_enlarges_small_images_and_shows_three_axes_of_volumes() -> None:
    assert sheet(np.ones((9, 1, 100, 80))).shape == (1, 200, 640)
    volume = np.zeros((1, 1, 32, 32, 16), dtype=np.float32)
    volume[0, 0, 16] = 1  # a sagittal plane: the whole first slice, a line in the two others
    found = sheet(volume)
    assert found.shape == (1, 4 * 33, 4 * 4 * (32 * 3 + 2))
    first = found[0, :, : 4 * 98]
    assert (first[: 4 * 16, : 4 * 32] == 1).all(), "16 slices high, at the top of the row"
    assert first[: 4 * 32, 4 * 64 : 4 * 96].mean() == 1 / 32, "the axial slice has its line"
    assert not found[0, :, 4 * 98 :].any(), "the rest of the row is dark"
