# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What a graphics card compares keypoints with; the arithmetic is the same on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import chest_phantom
from monai_memo.search.gallery import Gallery
from monai_memo.search.keypoint_table import KeypointTable
from monai_memo.search.keypoints import keypoints_of
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.runner import Runner

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(24)])


def with_table(gallery: np.ndarray, runner: Runner) -> LocalFeatureRetriever:
    retriever = LocalFeatureRetriever()
    retriever.fit(Gallery(gallery), runner)
    retriever.table = KeypointTable(retriever.packed, runner)
    return retriever


def test_each_keypoint_finds_the_nearest_of_every_image() -> None:
    retriever = with_table(CHEST, Runner())
    assert retriever.table is not None
    known = keypoints_of(CHEST[:, 0])
    noisy = np.clip(CHEST[:4, 0] + np.random.default_rng(0).normal(0, 0.02, CHEST[:4, 0].shape), 0, 1)
    points = keypoints_of(noisy.astype(np.float32))
    asked = points.descriptors[torch.arange(points.frames.shape[1]) < points.counts[:, None]]
    found = retriever.table.nearest(asked.numpy(), 3)
    owner = retriever.table.owner[found]
    assert all(len(set(row)) == 3 for row in owner.tolist())
    empty = torch.arange(known.frames.shape[1]) >= known.counts[:, None]
    distance = torch.cdist(asked.float(), known.descriptors.flatten(0, 1).float()).view(-1, *empty.shape)
    wanted = distance.masked_fill(empty, 1e9).amin(dim=2).argsort(dim=1)[:, :3]
    assert (wanted[:, 0].numpy() == owner[:, 0]).mean() > 0.98  # half precision: near ties may change places
    assert (wanted.numpy() == owner).mean() > 0.95


def test_rows_of_the_table_are_those_of_owner_and_frames() -> None:
    retriever = with_table(CHEST, Runner())
    assert retriever.table is not None
    np.testing.assert_array_equal(retriever.table.owner, retriever.index.owner)
    np.testing.assert_array_equal(retriever.table.frames, retriever.index.frames)
    every = keypoints_of(CHEST[3:4, 0])
    mine = every.descriptors[0, : int(every.counts[0])].numpy()
    first = retriever.table.nearest(mine, 1)[:, 0]
    assert (retriever.table.owner[first] == 3).all()
    np.testing.assert_allclose(retriever.table.frames[first, :2], every.frames[0, : len(mine), :2], atol=0.03)


@pytest.mark.parametrize("kind", [Planted("rotation", 45), Planted("margins", 0.15), Planted("flip", 0)])
@pytest.mark.parametrize("memory", [None, 1])
def test_it_finds_the_candidates_that_the_index_finds(kind: Planted, memory: int | None) -> None:
    copies, runner = torch.from_numpy(altered(CHEST[:6], kind, 0)), Runner(memory=memory)
    retriever = with_table(CHEST, runner)
    with torch.inference_mode():
        found = retriever.placed(copies, runner)
        retriever.table = None
        wanted = retriever.placed(copies, runner)
    by_table, by_index = (one.candidates[:, 0].tolist() for one in (found, wanted))
    assert sum(i == first for i, first in enumerate(by_table)) >= sum(i == first for i, first in enumerate(by_index))


def test_images_without_keypoints_and_small_galleries() -> None:
    blank = np.zeros((3, 1, 64, 64), dtype=np.float32)
    retriever = with_table(np.concatenate([blank, CHEST[:2]]), Runner())
    assert retriever.table is not None
    asked = keypoints_of(CHEST[:1, 0]).descriptors[0, :4].numpy()
    found = retriever.table.nearest(asked, 5)
    assert (found[:, 2:] == -1).all() and set(retriever.table.owner[found[:, :2]].ravel()) == {3, 4}
    nothing = with_table(blank, Runner())
    assert len(nothing.table) == 0  # type: ignore[arg-type]
    with torch.inference_mode():
        assert nothing.placed(torch.from_numpy(CHEST[:1]), Runner()).candidates.max() == -1
