# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.registration.coarse import CoarseSearch, warp
from monai_memo.search.shifts import ShiftSearch


def search_of(images: torch.Tensor) -> ShiftSearch:
    coarse = CoarseSearch(images.shape[2:])
    return ShiftSearch(coarse, coarse.features(images, torch.ones_like(images)))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("pixels", [(5, -6), (-4, 7)])
def test_the_shifted_original_comes_first(pixels: tuple[int, int], mirrored: bool) -> None:
    cohort = torch.from_numpy(np.stack([chest_phantom(seed) for seed in range(40)]))
    query = ndimage.shift(cohort[7, 0].numpy(), pixels, order=1)
    query = query[:, ::-1].copy() if mirrored else query
    assert search_of(cohort)(torch.from_numpy(query)[None, None], 3)[0] == 7


@pytest.mark.parametrize("zoom", [0.86, 1.15])
def test_the_zoomed_original_comes_first(zoom: float) -> None:
    cohort = torch.from_numpy(np.stack([chest_phantom(seed) for seed in range(40)]))
    placement = torch.tensor([[[1 / zoom, 0.0, 0.1], [0.0, 1 / zoom, 0.0]]])
    query, inside = warp(cohort[7:8], placement)
    assert search_of(cohort)(query * inside, 3)[0] == 7


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [-22.0, 8.0, 15.0])
def test_the_turned_original_comes_first(degrees: float, mirrored: bool) -> None:
    cohort = torch.from_numpy(np.stack([chest_phantom(seed) for seed in range(40)]))
    query = ndimage.rotate(cohort[7, 0].numpy(), degrees, reshape=False, order=1)
    query = query[:, ::-1].copy() if mirrored else query
    assert search_of(cohort)(torch.from_numpy(query)[None, None], 3)[0] == 7


def test_volumes_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = torch.from_numpy(np.stack([knee_phantom(seed, (32, 32, 32)) for seed in range(5)]))
    search = search_of(cohort)
    query = torch.from_numpy(ndimage.shift(cohort[3, 0].numpy(), (3, -2, 3), order=1))[None, None]
    found = search(query, 9)
    assert found[0] == 3 and sorted(found) == list(range(5))
    monkeypatch.setattr("monai_memo.search.shifts.BLOCK", 2)
    assert (search(query, 9) == found).all()
