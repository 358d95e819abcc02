# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant
from monai_memo.registration.affine import warp
from monai_memo.search import shape_retriever as module
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever

CHESTS = np.stack([chest_phantom(seed) for seed in range(40)])


def fitted(pixels: np.ndarray, templates: int = 1, shifted: int = 3, **settings: int) -> ShapeRetriever:
    retriever = ShapeRetriever(templates, shifted, **settings)
    retriever.fit(Gallery(pixels), Runner())
    return retriever


def by_shift(query: np.ndarray, pixels: np.ndarray = CHESTS, **settings: int) -> list[int]:
    """Candidates by shifts, best first."""
    tensor = torch.from_numpy(np.ascontiguousarray(query, dtype=np.float32))[None, None]
    retriever = fitted(pixels, **settings)
    return retriever(tensor, Runner())[0, 1:].tolist()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("pixels", [(5, -6), (-4, 7)])
def test_the_shifted_original_comes_first(pixels: tuple[int, int], mirrored: bool) -> None:
    query = ndimage.shift(CHESTS[7, 0], pixels, order=1)
    assert by_shift(query[:, ::-1] if mirrored else query)[0] == 7


@pytest.mark.parametrize("zoom", [0.86, 1.15])
def test_the_zoomed_original_comes_first(zoom: float) -> None:
    theta = torch.tensor([[[1 / zoom, 0.0, 0.1], [0.0, 1 / zoom, 0.0]]])
    query, inside = warp(torch.from_numpy(CHESTS[7:8]), theta)
    assert by_shift((query * inside)[0, 0].numpy())[0] == 7


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [-22.0, 8.0, 15.0])
def test_the_turned_original_comes_first(degrees: float, mirrored: bool) -> None:
    query = ndimage.rotate(CHESTS[7, 0], degrees, reshape=False, order=1)
    assert by_shift(query[:, ::-1] if mirrored else query)[0] == 7


def test_volumes_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = np.stack([knee_phantom(seed, (32, 32, 32)) for seed in range(5)])
    query = ndimage.shift(cohort[3, 0], (3, -2, 3), order=1)
    found = by_shift(query, cohort, shifted=9)
    assert found[0] == 3 and sorted(found) == list(range(5))
    monkeypatch.setattr(module, "COLUMNS", 2)
    assert by_shift(query, cohort, shifted=9) == found


def test_templates_need_no_network() -> None:
    turned = torch.from_numpy(plant(CHESTS[:12], "rotation", 0))
    found = fitted(CHESTS[:12], templates=3)(turned, Runner())[:, :3]
    assert np.mean([i in row for i, row in enumerate(found.tolist())]) > 0.8


@pytest.mark.parametrize("kind", ["rotation", "shift", "zoom", "flip"])
def test_a_large_gallery_is_looked_through_by_its_principal_components(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = torch.from_numpy(plant(CHESTS[:12], kind, 0))
    monkeypatch.setattr(module, "SHORTLIST", 8)
    exact, coarse = fitted(CHESTS, 4, 4), fitted(CHESTS, 4, 4, exact_up_to=10, pool=12)
    assert exact.exact and not coarse.exact
    wanted, found = (retriever(queries, Runner()).tolist() for retriever in (exact, coarse))
    both = [(i in first, i in second) for i, (first, second) in enumerate(zip(wanted, found, strict=True))]
    assert sum(second for _, second in both) >= sum(first for first, _ in both) - 1
