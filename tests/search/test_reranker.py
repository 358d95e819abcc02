# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant
from monai_memo.search.gallery import Gallery
from monai_memo.search.pair import compare_pair
from monai_memo.search.reranker import RegisteredReranker, ScoredBlock
from monai_memo.search.runner import Runner

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(12)])
KNEE = np.stack([knee_phantom(i, (32, 32, 32)) for i in range(6)])
OTHERS = np.stack([chest_phantom(100 + i, (64, 64)) for i in range(6)])


def scored(
    gallery: np.ndarray, queries: np.ndarray, candidates: Sequence[Sequence[int]], runner: Runner | None = None
) -> ScoredBlock:
    reranker, runner = RegisteredReranker(), runner or Runner()
    reranker.fit(Gallery(gallery), runner)
    with torch.inference_mode():
        return reranker(torch.from_numpy(queries), torch.tensor(candidates), None, runner)


@pytest.mark.parametrize("kind", ["flip", "rotation", "zoom", "shift", "gamma", "noise", "erasing", "replacement"])
def test_copies_lie_above_every_other_patient(kind: str) -> None:
    everyone = [list(range(12))] * 6
    unseen = scored(CHEST, OTHERS, everyone).similarity[:, 0]
    copies = scored(CHEST, plant(CHEST[:6], kind, 0), everyone)
    assert (copies.candidates[:, 0].numpy() == np.arange(6)).mean() > 0.8
    assert copies.similarity[:, 0].median() > unseen.max()


def test_volumes() -> None:
    copies = scored(KNEE, plant(KNEE, "rotation", 0), [list(range(6))] * 6)
    assert (copies.candidates[:, 0].numpy() == np.arange(6)).mean() > 0.8


def test_alignment_never_draws_a_copy_away_from_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn_away(thetas: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return thetas + 0.06

    monkeypatch.setattr("monai_memo.search.reranker.refine", drawn_away)
    found = scored(CHEST, CHEST[:3], [list(range(5))] * 3)
    assert found.candidates[:, 0].tolist() == [0, 1, 2] and bool((found.similarity[:, 0] > 0.99).all())
    np.testing.assert_array_equal(found.transforms[0, 0], np.eye(2, 3))


@pytest.mark.parametrize("shape", [(64, 64), (48, 64)])
def test_copies_squeezed_between_margins_are_laid_on_the_whole_of_their_original(shape: tuple[int, int]) -> None:
    gallery = np.stack([chest_phantom(i, shape) for i in range(12)])
    gallery[3, :, :, :10] = 0  # one that has a margin itself
    copies = altered(gallery[:6], Planted("letterbox", 0.2), 0)
    unseen = altered(np.stack([chest_phantom(100 + i, shape) for i in range(6)]), Planted("letterbox", 0.2), 0)
    found = scored(gallery, copies, [list(range(12))] * 6)
    assert found.candidates[:, 0].tolist() == list(range(6))
    assert found.similarity[:, 0].min() > scored(gallery, unseen, [list(range(12))] * 6).similarity[:, 0].max()
    stretched = found.transforms[:, 0, 1, 1].numpy()
    np.testing.assert_allclose(stretched, 1 / 0.6, rtol=0.1)


def test_few_candidates_leave_empty_places() -> None:
    found = scored(CHEST, CHEST[:2], [[4, -1, -1], [1, 5, -1]])
    assert found.candidates[0].tolist() == [4, -1, -1, -1, -1] and found.candidates[1, 0] == 1
    assert sorted(found.candidates[1].tolist()) == [-1, -1, -1, 1, 5]
    assert bool((found.similarity[found.candidates < 0] == -1).all())


def test_blocks_of_any_size_give_the_same() -> None:
    candidates = [list(range(12))] * 6
    queries = plant(CHEST[:6], "rotation", 0)
    one, many = (scored(CHEST, queries, candidates, Runner(memory=memory)) for memory in (1, 2**30))
    assert one.candidates.tolist() == many.candidates.tolist()
    torch.testing.assert_close(one.similarity, many.similarity, atol=1e-4, rtol=0)
    # Queries do not look at one another.
    alone = scored(CHEST, queries[2:3], candidates[:1])
    torch.testing.assert_close(alone.similarity[0], many.similarity[2], atol=1e-4, rtol=0)


def test_pair_shows_what_was_replaced() -> None:
    copy = plant(CHEST[:2], "flip", 0)[0]
    copy[:, 20:44, 20:44] = OTHERS[0][:, 20:44, 20:44]
    pair = compare_pair(copy, CHEST[0])
    assert pair.mirrored and pair.aligned.shape == (1, 64, 64) and pair.agreement.shape == (64, 64)
    inside = pair.agreement[26:38, 26:38].mean()
    assert np.delete(pair.agreement, np.arange(16, 48), axis=1).mean() > inside + 0.1
    with pytest.raises(ValueError, match="same shape"):
        compare_pair(copy, CHEST[0][:, :32])
