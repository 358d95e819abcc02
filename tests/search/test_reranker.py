# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import plant
from monai_memo.search import reranker as module
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.embedding_retriever import find_candidates, query_views
from monai_memo.search.pair import compare_pair
from monai_memo.search.reranker import Verifier
from monai_memo.search.templates import TemplateSearch

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(12)])
KNEE = np.stack([knee_phantom(i, (32, 32, 32)) for i in range(6)])
OTHERS = np.stack([chest_phantom(100 + i, (64, 64)) for i in range(6)])
ALL = [np.arange(12)] * 12


def embed(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)


@pytest.mark.parametrize("kind", ["flip", "rotation", "zoom", "shift", "gamma", "noise", "erasing", "replacement"])
def test_copies_lie_above_every_other_patient(kind: str) -> None:
    verifier = Verifier(CHEST)
    unseen = verifier(OTHERS, ALL[:6], progress=False).similarity[:, 0]
    copies = verifier(plant(CHEST[:6], kind, 0), ALL[:6], progress=False)
    assert (copies.candidates[:, 0] == np.arange(6)).mean() > 0.8
    assert np.median(copies.similarity[:, 0]) > unseen.max()


def test_volumes() -> None:
    copies = Verifier(KNEE)(plant(KNEE, "rotation", 0), [np.arange(6)] * 6, progress=False)
    assert (copies.candidates[:, 0] == np.arange(6)).mean() > 0.8


def test_alignment_never_draws_a_copy_away_from_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn_away(placements: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return placements + 0.06

    monkeypatch.setattr("monai_memo.search.reranker.refine", drawn_away)
    found = Verifier(CHEST)(CHEST[:3], np.tile(np.arange(5), (3, 1)), progress=False)
    assert found.candidates[:, 0].tolist() == [0, 1, 2] and (found.similarity[:, 0] > 0.99).all()
    np.testing.assert_array_equal(found.placements[0, 0], np.eye(2, 3))


def test_few_candidates_leave_empty_places() -> None:
    found = Verifier(CHEST)(CHEST[:1], [np.array([4])], progress=False)
    assert found.candidates.tolist() == [[4, -1, -1, -1, -1]] and (found.similarity[0, 1:] == -1).all()


def test_a_call_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = Verifier(CHEST)
    whole = verifier(OTHERS, ALL[:6], progress=False)
    seen: list[int] = []
    verify, store = Verifier._verify, tmp_path / "v.npz"

    def killed(self: Verifier, *arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return verify(self, *arguments)

    monkeypatch.setattr(Verifier, "_verify", killed)
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    with pytest.raises(KeyboardInterrupt):
        verifier(OTHERS, ALL[:6], progress=False, store=store)
    content = store.read_bytes()

    def again(*arguments: Any) -> int:
        seen.clear()
        resumed = verifier(*arguments, progress=False, store=store)
        assert len(resumed) == len(arguments[0])
        if len(arguments[0]) == len(whole):
            np.testing.assert_array_equal(resumed.similarity, whole.similarity)
            np.testing.assert_array_equal(resumed.placements, whole.placements)
        return len(seen)

    monkeypatch.setattr(Verifier, "_verify", lambda self, *a: (seen.append(1), verify(self, *a))[1])
    assert again(OTHERS, ALL[:6]) == 4 and again(OTHERS, ALL[:6]) == 0
    # Damaged, or of other queries or other candidates: not used.
    store.write_bytes(content[:300] + b"\0\0\0" + content[303:])
    assert again(OTHERS, ALL[:6]) == 6
    assert again(OTHERS[:5], ALL[:5]) == 5 and again(OTHERS[:5], [row[1:] for row in ALL[:5]]) == 5


def test_candidates_hold_the_moved_original() -> None:
    index = EmbeddingIndex(embed(CHEST))
    moved = plant(CHEST, "shift", 0)
    found = find_candidates(moved, embed, index, k=3, progress=False)
    assert np.mean([i in candidates for i, candidates in enumerate(found)]) > 0.8
    assert all(3 <= len(candidates) <= 6 for candidates in found)
    assert len(query_views(2)) == 8 and len(query_views(3)) == 14


def test_templates_need_no_network() -> None:
    search = TemplateSearch([torch.from_numpy(CHEST[:8]), torch.from_numpy(CHEST[8:])], (64, 64))
    turned = torch.from_numpy(plant(CHEST, "rotation", 0))
    assert np.mean([i in search(turned[i : i + 1], 3) for i in range(12)]) > 0.8


def test_search_finds_what_a_useless_embedding_misses() -> None:
    rng = np.random.default_rng(0)

    def blind(images: np.ndarray) -> np.ndarray:
        return rng.normal(size=(len(images), 8))

    search = CopySearch(CHEST, EmbeddingIndex(blind(CHEST)), blind, neighbours=1)
    found = search(plant(CHEST[:6], "rotation", 0), progress=False)
    assert (found.candidates[:, 0] == np.arange(6)).all()


def test_pair_shows_what_was_replaced() -> None:
    copy = plant(CHEST[:2], "flip", 0)[0]
    copy[:, 20:44, 20:44] = OTHERS[0][:, 20:44, 20:44]
    pair = compare_pair(copy, CHEST[0])
    assert pair.mirrored and pair.aligned.shape == (1, 64, 64) and pair.agreement.shape == (64, 64)
    inside = pair.agreement[26:38, 26:38].mean()
    assert np.delete(pair.agreement, np.arange(16, 48), axis=1).mean() > inside + 0.1
    with pytest.raises(ValueError, match="same shape"):
        compare_pair(copy, CHEST[0][:, :32])
