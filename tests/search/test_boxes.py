# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from monai_memo.registration.affine import half_lengths, identity
from monai_memo.search.boxes import bounds, grown, unboxed


@pytest.mark.parametrize("shape", [(20, 40), (20, 40, 10)])
def test_a_box_reaches_from_the_first_to_the_last_pixel_that_shows_anything(shape: tuple[int, ...]) -> None:
    mask = torch.zeros(2, 1, *shape)
    mask[0, 0, 5:15, 30:35] = 1
    centre, half = bounds(mask)
    assert centre[0].tolist() == pytest.approx([*[0.0] * (len(shape) - 2), 2 * 32.5 / 40 - 1, 0.0])
    assert half[0].tolist() == pytest.approx([*[1.0] * (len(shape) - 2), 5 / 40, 10 / 20])
    assert half[1].tolist() == [1.0] * len(shape) and centre[1].tolist() == [0.0] * len(shape)  # nothing: all of it
    wider = bounds(grown(mask))[1][0]
    assert wider[-2:].tolist() == pytest.approx([7 / 40, 12 / 20])


def test_a_box_laid_on_a_box_brings_corner_to_corner() -> None:
    shape = (20, 40)
    here, there = torch.zeros(1, 1, *shape), torch.zeros(1, 1, *shape)
    here[..., 4:16, 8:20], there[..., 2:18, 0:40] = 1, 1
    unit = half_lengths(shape)
    theta = unboxed(identity(2), bounds(here), bounds(there), unit)[0]
    for x, y, their_x, their_y in ((8, 4, 0, 2), (20, 16, 40, 18), (8, 16, 0, 18)):
        place = torch.tensor([2 * x / 40 - 1, 2 * y / 20 - 1]) * unit
        moved = (theta[:, :2] @ place + theta[:, 2]) / unit
        assert moved.tolist() == pytest.approx([2 * their_x / 40 - 1, 2 * their_y / 20 - 1], abs=1e-5)
