# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies beyond the views: each kind is found by the search as an audit makes it, and told what was done to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import chest_phantom
from monai_memo.registration.affine import within_reach
from monai_memo.registration.lncc import profile
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(40)])
UNSEEN = np.stack([chest_phantom(100 + i, (64, 64)) for i in range(16)])
KINDS = [
    ("margins", 0.25), ("white_margins", 0.1), ("crop", 0.4), ("crop_corner", 0.3), ("rotation", 45), ("turn", 90),
    ("upside_down", 0), ("shift", 0.25), ("anisotropic", 0.2), ("shear", 0.15), ("inverted", 0), ("elastic", 0.06),
    ("noise", 0.3), ("text", 6), ("letterbox", 0.2),
]  # fmt: skip


@pytest.fixture(scope="module")
def search() -> CopySearch:
    return CopySearch.default(lambda images: images.flatten(1)).fit(Gallery(CHEST))


@pytest.fixture(scope="module")
def highest(search: CopySearch) -> float:
    return float(search.search(UNSEEN).similarity[:, 0].max())


@pytest.mark.parametrize(("kind", "strength"), KINDS)
def test_copies_lie_above_unseen_patients(search: CopySearch, highest: float, kind: str, strength: float) -> None:
    found = search.search(altered(CHEST[:4], Planted(kind, strength), 0))
    right = found.candidates[:, 0] == np.arange(4)
    assert right.sum() >= 3 and (found.similarity[right, 0] > highest).sum() >= 3
    assert (found.inverted[right, 0] == (kind == "inverted")).all()


def test_both_originals_of_a_blend_are_named(search: CopySearch) -> None:
    found = search.search((CHEST[:4] + CHEST[10:14]) / 2)
    named = [{int(one), int(two)} == {row, 10 + row} for row, (one, two) in enumerate(found.candidates[:, :2])]
    assert sum(named) >= 3


def test_volumes_are_looked_up_without_keypoints() -> None:
    volumes = np.random.default_rng(0).random((3, 1, 16, 16, 16), dtype=np.float32)
    found = CopySearch.default(lambda images: images.flatten(1)).fit(Gallery(volumes))
    assert found.describe()["retrievers"] == ["EmbeddingRetriever", "ShapeRetriever", "VolumeRetriever"]
    assert found.search(volumes[1:2]).candidates[0, 0] == 1


def test_where_little_is_visible_all_of_it_counts() -> None:
    agreement, visible = torch.zeros(1, 1, 10, 10), torch.ones(1, 1, 10, 10)
    agreement[0, 0, :4] = 0.9  # 40 of 100 windows
    assert profile(agreement, visible, 0.4).item() == pytest.approx(0.9)
    visible[0, 0, 3:] = 0  # 30 are left
    assert profile(agreement, visible, 0.4).item() == pytest.approx(0.9)
    agreement[0, 0, 2] = 0.3  # a bad one counts as well
    assert profile(agreement, visible, 0.4).item() == pytest.approx(0.7)
    visible[0, 0, 1:] = 0  # 10 are left: not enough to say that much
    assert profile(agreement, visible, 0.4).item() == pytest.approx(0.9 * 10 / 15)


def test_what_is_within_reach() -> None:
    def theta(degrees: float, zoom: float, shift: float, mirrored: bool = False) -> torch.Tensor:
        angle = np.radians(degrees)
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn = turn @ np.diag([-1.0, 1.0]) if mirrored else turn
        return torch.tensor(np.c_[turn, [shift, 0]], dtype=torch.float32)

    near = [theta(0, 1, 0), theta(20, 1.2, 0.3), theta(-20, 0.85, -0.3, True), theta(0, 1, 0, True)]
    far = [
        theta(45, 1, 0),
        theta(180, 1, 0),
        theta(0, 1.6, 0),
        theta(0, 0.6, 0),
        theta(0, 1, 0.5),
        theta(90, 1, 0, True),
    ]
    assert within_reach(torch.stack(near)).tolist() == [True] * len(near)
    assert within_reach(torch.stack(far)).tolist() == [False] * len(far)
    assert within_reach(torch.eye(3, 4)[None]).tolist() == [True]
    assert within_reach(
        torch.diag(torch.tensor([-1.0, -1.0, 1.0]))[:, [0, 1, 2, 2]][None] * torch.tensor([1, 1, 1, 0])
    ).tolist() == [False]
