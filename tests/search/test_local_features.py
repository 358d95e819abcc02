# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.registration.affine import warp
from monai_memo.search.gallery import Gallery
from monai_memo.search.keypoints import INVERTED, MIRRORED, keypoints_of, variants_of
from monai_memo.search.local_features import LocalFeatureRetriever, Placed
from monai_memo.search.runner import Runner

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(24)])
OBLONG = np.stack([chest_phantom(i, (80, 56)) for i in range(24)])
ANYWHERE = [
    ("margins", 0.15), ("margins", 0.25), ("white_margins", 0.1), ("crop", 0.3), ("crop_corner", 0.3), ("rotation", 45),
    ("turn", 90), ("turn", 180), ("upside_down", 0), ("transposed", 0), ("shift", 0.25), ("anisotropic", 0.2),
    ("shear", 0.15), ("perspective", 0.1), ("inverted", 0), ("flip", 0),
]  # fmt: skip


def placed(gallery: np.ndarray, queries: np.ndarray, runner: Runner | None = None) -> Placed:
    retriever, runner = LocalFeatureRetriever(), runner or Runner()
    retriever.fit(Gallery(gallery), runner)
    with torch.inference_mode():
        return retriever.placed(torch.from_numpy(queries), runner)


@pytest.mark.parametrize(("variant", "change"), [
    (MIRRORED, lambda images: images[:, :, ::-1]),
    (INVERTED, lambda images: 1 - images),
    (MIRRORED | INVERTED, lambda images: 1 - images[:, :, ::-1]),
])  # fmt: skip
def test_keypoints_of_mirror_images_and_negatives_need_no_second_look(variant: int, change) -> None:  # type: ignore[no-untyped-def]
    points, other = keypoints_of(CHEST[:3, 0]), keypoints_of(np.ascontiguousarray(change(CHEST[:3, 0])))
    descriptors, frames = variants_of(points)
    for row in range(3):
        count, there = int(points.counts[row]), int(other.counts[row])
        assert count > 10
        turned = torch.remainder(frames[row, variant, :count, None, 3] - other.frames[row, None, :there, 3], 2 * np.pi)
        away = (frames[row, variant, :count, None, :2] - other.frames[row, None, :there, :2]).norm(dim=2)
        away, match = (away + torch.minimum(turned, 2 * np.pi - turned)).min(dim=1)
        kept = away < 0.01
        assert kept.float().mean() > 0.8
        same = (descriptors[row, variant, :count][kept].float() - other.descriptors[row][match[kept]].float()).norm(
            dim=1
        )
        assert same.median() < 10  # of a length of 512


@pytest.mark.parametrize(("kind", "strength"), ANYWHERE)
@pytest.mark.parametrize("gallery", [CHEST, OBLONG], ids=["square", "oblong"])
def test_copies_are_found_and_placed_however_they_were_moved(kind: str, strength: float, gallery: np.ndarray) -> None:
    if gallery is OBLONG and kind in ("turn", "transposed"):
        pytest.skip("resampled to the shape it had")
    copies = altered(gallery[:8], Planted(kind, strength), 0)
    found = placed(gallery, copies)
    right = found.candidates[:, 0].numpy() == np.arange(8)
    assert right.mean() >= 7 / 8
    rows = np.flatnonzero(right)
    assert bool((found.inverted[rows, 0] == (kind == "inverted")).all())
    originals = torch.from_numpy(gallery[rows])
    aligned, inside = warp(originals, found.transforms[rows, 0])
    queries = torch.from_numpy(copies[rows])
    queries = 1 - queries if kind == "inverted" else queries
    shown = inside * (queries > 0.02)
    error = ((aligned - queries).abs() * shown).sum() / shown.sum()
    elsewhere = ((originals.roll(1, 0) - queries).abs() * shown).sum() / shown.sum()
    assert error < 0.06 and error < 0.6 * elsewhere


def test_which_keypoints_agree_is_told() -> None:
    halves = CHEST[:2].copy()
    halves[:, :, :, 32:] = CHEST[10:12, :, :, 32:]
    found = placed(CHEST, halves)
    for row in range(2):
        of = found.candidates[row].tolist()
        assert {row, 10 + row} <= set(of)
        left = found.places[row, 0][found.agreeing[row, of.index(row)]][:, 0]
        right = found.places[row, 0][found.agreeing[row, of.index(10 + row)]][:, 0]
        assert (left < 0.1).float().mean() > 0.8 and (right > -0.1).float().mean() > 0.8
        assert found.votes[row, of.index(row)] <= found.agreeing[row, of.index(row)].sum()


def test_pictures_without_keypoints_have_no_candidates() -> None:
    flat = np.full((2, 1, 64, 64), 0.5, dtype=np.float32)
    assert bool((placed(CHEST, flat).candidates == -1).all())
    assert bool((placed(flat, CHEST[:2]).candidates == -1).all())


def test_given_candidates_are_placed_instead() -> None:
    retriever, runner = LocalFeatureRetriever(), Runner()
    retriever.fit(Gallery(CHEST), runner)
    points = keypoints_of(1 - CHEST[:2, 0, ::-1])
    with torch.inference_mode():
        found = retriever.place(points, runner, np.array([[5, 0], [1, 7]]))
    assert found.candidates[0, 0] == 0 and found.candidates[1, 0] == 1 and bool(found.inverted[:, 0].all())
    assert {5, 7}.isdisjoint(found.candidates[:, 0].tolist())


def test_blocks_of_any_size_and_mapped_keypoints_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = altered(CHEST[:6], Planted("rotation", 30), 0)
    once = placed(CHEST, copies)
    monkeypatch.setattr("monai_memo.search.gallery.MAPPED_FROM", 1)
    again = placed(CHEST, copies, Runner(memory=1, folder=tmp_path))
    assert (tmp_path / "keypoints.mapped").is_file()
    assert once.candidates.tolist() == again.candidates.tolist()
    torch.testing.assert_close(once.transforms, again.transforms, atol=1e-4, rtol=0)


def test_volumes_are_refused() -> None:
    with pytest.raises(ValueError, match="keypoints are for pictures"):
        LocalFeatureRetriever().fit(Gallery(np.stack([knee_phantom(0, (16, 16, 16))])), Runner())


def test_keypoints_are_looked_up_as_they_are() -> None:
    """The index keeps bytes: what is left beside the middle of a list would not fit into them."""
    retriever = LocalFeatureRetriever()
    retriever.fit(Gallery(CHEST), Runner())
    known = keypoints_of(CHEST[:, 0])
    used = torch.arange(known.frames.shape[1]) < known.counts[:, None]
    every = known.descriptors[used].float()
    noisy = np.clip(CHEST[:8, 0] + np.random.default_rng(0).normal(0, 0.02, CHEST[:8, 0].shape), 0, 1)
    points = keypoints_of(noisy.astype(np.float32))
    asked = points.descriptors[torch.arange(points.frames.shape[1]) < points.counts[:, None]].float()
    true = torch.cdist(asked, every).min(dim=1)
    assert retriever.index.file is not None
    distance, found = retriever.index.file.search(asked.numpy(), 1)
    assert (torch.from_numpy(found[:, 0]) == true.indices).float().mean() > 0.8
    same = found[:, 0] == true.indices.numpy()
    np.testing.assert_allclose(np.sqrt(distance[same, 0]), true.values.numpy()[same], atol=0.01)


@pytest.mark.parametrize("index_from", [0, 10**9])
def test_a_gallery_takes_over_what_was_found_in_a_larger_one_that_it_begins(
    index_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_memo.search.gallery.INDEX_FROM", index_from)
    larger, alone = Gallery(CHEST), LocalFeatureRetriever()
    LocalFeatureRetriever().fit(larger, Runner())
    alone.fit(Gallery(CHEST[:10]), Runner())
    monkeypatch.setattr("monai_memo.search.local_features.keypoints_of", pytest.fail)  # for no image a second time
    known = LocalFeatureRetriever()
    known.fit(Gallery(CHEST[:10]).knowing(larger), Runner())
    assert torch.equal(known.packed, alone.packed)
    assert (known.index.file is larger.keypoints.file) is (index_from == 0)  # type: ignore[union-attr]
    asked = keypoints_of(CHEST[:, 0]).descriptors[8:14].flatten(0, 1).numpy()
    found = known.index.nearest(asked, 3)
    assert found.min() >= 0 and known.index.owner[found].max() == 9  # nothing of the other images
    agree = (found[:, 0] == alone.index.nearest(asked, 3)[:, 0]).mean()
    assert agree > 0.9 if index_from == 0 else agree == 1
