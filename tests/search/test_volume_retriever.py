# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import knee_phantom
from monai_memo.registration.affine import warp
from monai_memo.registration.lncc import profile
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.placed import Placed
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.search.volume_retriever import Boxed, VolumeRetriever
from monai_memo.search.volume_versions import CROPPED, FAMILIES, NEAR, REORIENTED, TURNED, versions

KNEES = np.stack([knee_phantom(i, (32, 32, 32)) for i in range(24)])
OBLONG = np.stack([knee_phantom(i, (32, 40, 24)) for i in range(12)])
UNSEEN = np.stack([knee_phantom(100 + i, (32, 32, 32)) for i in range(5)])
KINDS = [
    ("margins", 0.2), ("white_margins", 0.1), ("letterbox", 0.2), ("crop", 0.2), ("crop_corner", 0.3), ("shift", 0.25),
    ("tilted", 30), ("turn", 90), ("turn", 180), ("upside_down", 0), ("front_to_back", 0), ("transposed", 0),
    ("reoriented", 0), ("inverted", 0), ("anisotropic", 0.2), ("zoom", 0.35), ("flip", 0),
]  # fmt: skip


def placed(gallery: np.ndarray, queries: np.ndarray) -> Placed:
    retriever, runner = VolumeRetriever(), Runner()
    retriever.fit(Gallery(gallery), runner)
    with torch.inference_mode():
        return retriever.placed(torch.from_numpy(queries), runner)


@pytest.fixture(scope="module")
def fitted() -> VolumeRetriever:
    retriever = VolumeRetriever()
    retriever.fit(Gallery(KNEES), Runner())
    return retriever


@pytest.mark.parametrize(("kind", "strength"), KINDS)
def test_originals_are_candidates_with_the_transform_that_brings_them_there(
    fitted: VolumeRetriever, kind: str, strength: float
) -> None:
    queries = altered(KNEES[:4], Planted(kind, strength), 0)
    with torch.inference_mode():
        found = fitted.placed(torch.from_numpy(queries), Runner())
    good = 0
    for row in range(4):
        for column in (found.candidates[row] == row).nonzero()[:, 0]:
            moved, inside = warp(torch.from_numpy(KNEES[row : row + 1]), found.transforms[row, column][None])
            seen = (inside[0, 0] > 0) & torch.from_numpy((queries[row, 0] > 0) & (queries[row, 0] < 1))
            one, two = torch.from_numpy(queries[row, 0])[seen], moved[0, 0][seen]
            correlation = float(torch.corrcoef(torch.stack([one, two]))[0, 1])
            wanted = -1 if found.inverted[row, column] else 1
            good += wanted * correlation > 0.8 and (wanted == -1) == (kind == "inverted")
    assert good >= 3


def test_oblong_volumes_are_turned_as_they_are_and_boxed_as_they_lie() -> None:
    for kind, strength in (("tilted", 30), ("margins", 0.2), ("turn", 180), ("crop", 0.3)):
        found = placed(OBLONG, altered(OBLONG[:3], Planted(kind, strength), 1))
        right = found.candidates == torch.arange(3)[:, None]
        assert right.any(dim=1).sum() >= 2, kind


@pytest.fixture(scope="module")
def search() -> CopySearch:
    return CopySearch([ShapeRetriever(), VolumeRetriever()], whole_images=False).fit(Gallery(KNEES))


@pytest.fixture(scope="module")
def highest(search: CopySearch) -> float:
    return float(search.search(UNSEEN).similarity[:, 0].max())


@pytest.mark.parametrize(("kind", "strength"), [("margins", 0.25), ("reoriented", 0), ("inverted", 0), ("crop", 0.3)])
def test_copies_lie_above_unseen_volumes(search: CopySearch, highest: float, kind: str, strength: float) -> None:
    found = search.search(altered(KNEES[:3], Planted(kind, strength), 0))
    right = found.candidates[:, 0] == np.arange(3)
    assert right.all() and (found.similarity[:, 0] > highest).all()
    assert (found.inverted[right, 0] == (kind == "inverted")).all()


def test_unseen_volumes_are_not_lifted_by_more_ways_of_looking() -> None:
    scores = []
    for further in ([], [VolumeRetriever()]):
        search = CopySearch([ShapeRetriever(), *further], whole_images=False).fit(Gallery(KNEES))
        scores.append(search.search(UNSEEN).similarity[:, 0])
    before, after = scores
    assert np.median(after - before) < 0.01 and after.max() < before.max() + 0.02


def test_the_box_holds_what_lies_between_margins() -> None:
    framed = altered(KNEES[:1], Planted("margins", 0.2), 0)
    boxed = Boxed.of(torch.from_numpy(framed))
    there = [np.flatnonzero(framed[0, 0].max(axis=axes)) for axes in ((0, 1), (0, 2), (1, 2))]  # last axis first
    for axis, place in enumerate(there):
        low, high = (32 * (boxed.centre[0, axis] + way * boxed.half[0, axis] + 1) / 2 for way in (-1, 1))
        assert abs(float(low) - place[0]) <= 1 and abs(float(high) - place[-1] - 1) <= 1
    everything = Boxed.of(torch.zeros(1, 1, 32, 32, 32))
    assert everything.half.tolist() == [[1, 1, 1]] and everything.centre.tolist() == [[0, 0, 0]]


def test_versions_hold_every_axis_symmetry_once_upright() -> None:
    ways = versions((32, 32, 32))
    assert (
        sum(ways.families) == len(ways.thetas) == sum(count for _, count in ways.sizes)
        and len(ways.families) == FAMILIES
    )
    upright = ways.thetas[(ways.thetas[:, :, :3].abs().sum(dim=(1, 2)) == 3) & (ways.thetas[:, :, 3] == 0).all(dim=1)]
    symmetries = {tuple(one.flatten().tolist()) for one in upright[:, :, :3]}
    assert len(symmetries) == len({tuple(np.round(one, 3)) for one in symmetries}) == 48
    assert [ways.families[family] > 100 for family in (NEAR, CROPPED, TURNED, REORIENTED)] == [True] * 4


def test_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="for volumes"):
        VolumeRetriever().fit(Gallery(np.zeros((3, 1, 16, 16), np.float32)), Runner())


def test_black_volumes_give_numbers() -> None:
    found = placed(np.concatenate([KNEES[:5], np.zeros_like(KNEES[:1])]), np.zeros_like(KNEES[:2]))
    assert torch.isfinite(found.transforms).all() and torch.isfinite(found.votes).all()


def test_where_little_of_a_volume_is_visible_all_of_it_counts() -> None:
    agreement, visible = torch.full((1, 1, 10, 10, 10), 0.8), torch.zeros(1, 1, 10, 10, 10)
    visible[0, 0, 3:7, 3:7, 3:7] = 1  # 64 of 1,000 windows: margins of three tenths
    assert profile(agreement, visible).item() == pytest.approx(0.8)
    visible[0, 0, 3:5] = 0
    assert profile(agreement, visible).item() == pytest.approx(0.8 * 32 / 60)
