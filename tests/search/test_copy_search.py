# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole search: what it finds, how it goes on, and that its parts can be exchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.planting import plant
from monai_memo.search import copy_search as module
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import ArrayEncoder, EmbeddingRetriever, query_views
from monai_memo.search.gallery import Gallery
from monai_memo.search.matches import NAMES, Matches
from monai_memo.search.pair import compare_pair
from monai_memo.search.parts import PartSearch
from monai_memo.search.protocols import Scored
from monai_memo.search.reranker import RegisteredReranker, ScoredBlock
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(24)])
OTHERS = np.stack([chest_phantom(100 + i, (64, 64)) for i in range(6)])


def flat(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


def same(first: Matches, second: Matches) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_candidates_by_embedding_hold_the_moved_original() -> None:
    retriever = EmbeddingRetriever(flat, neighbours=4)
    retriever.fit(Gallery(CHEST), Runner())
    found = retriever(torch.from_numpy(plant(CHEST, "shift", 0)), Runner())
    assert np.mean([i in row for i, row in enumerate(found.tolist())]) > 0.8
    assert found.shape == (24, 8) and len(query_views(2)) == 8 and len(query_views(3)) == 14


def test_search_finds_what_a_useless_embedding_misses() -> None:
    rng = np.random.default_rng(0)
    blind = ArrayEncoder(lambda images: rng.normal(size=(len(images), 8)))
    search = CopySearch([EmbeddingRetriever(blind, neighbours=1), ShapeRetriever()]).fit(Gallery(CHEST))
    found = search.search(plant(CHEST[:6], "rotation", 0))
    assert (found.candidates[:, 0] == np.arange(6)).all()


def test_a_frozen_network_is_an_encoder(tmp_path: Path) -> None:
    """Any torch module will do, also one that was saved for use without its code."""
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 32))
    torch.jit.trace(network, torch.zeros(2, 1, 64, 64)).save(str(tmp_path / "encoder.ts"))
    kept = torch.jit.load(str(tmp_path / "encoder.ts"))
    queries = plant(CHEST[:4], "noise", 0)
    found = [CopySearch([EmbeddingRetriever(one)]).fit(Gallery(CHEST)).search(queries) for one in (network, kept)]
    assert (found[0].candidates[:, 0] == np.arange(4)).all()
    same(*found)


class Everything:
    """A retriever that knows no better."""

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        self.size = len(gallery)

    def __call__(self, queries: torch.Tensor, runner: Runner) -> torch.Tensor:
        return torch.arange(self.size).expand(len(queries), -1)


class Difference:
    """A reranker that compares pixels where they lie."""

    refined = 2

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        self.pixels = torch.from_numpy(gallery.pixels)

    def __call__(
        self, queries: torch.Tensor, candidates: torch.Tensor, kept: torch.Tensor | None, runner: Runner
    ) -> Scored:
        error = (queries[:, None] - self.pixels[candidates.clamp(min=0)]).abs().flatten(2).mean(dim=2)
        similarity, best = (1 - error).where(candidates >= 0, torch.tensor(-1.0)).topk(self.refined, dim=1)
        theta = torch.eye(2, 3).expand(len(queries), self.refined, 2, 3)
        return ScoredBlock(candidates.gather(1, best), similarity, theta, similarity.unsqueeze(2))


def test_users_put_in_a_retriever_and_a_reranker_of_their_own() -> None:
    search = CopySearch([Everything()], Difference(), whole_images=False).fit(Gallery(CHEST))
    found = search.search(CHEST[3:5])
    assert found.candidates[:, 0].tolist() == [3, 4] and found.similarity[:, 0].tolist() == [1.0, 1.0]
    assert search.describe() == {
        "retrievers": ["Everything"], "neighbours": 0, "refined": 2, "whole_images": False, "exact": True,
        "own": ["Everything", "Difference"],
    }  # fmt: skip


def test_queries_have_the_shape_of_the_gallery() -> None:
    with pytest.raises(ValueError, match=r"queries must have shape \(n, 1, 64, 64\).*\(2, 1, 32, 32\)"):
        CopySearch().fit(Gallery(CHEST)).search(np.zeros((2, 1, 32, 32), dtype=np.float32))
    with pytest.raises(ValueError, match="patients must be as many as the images, 24, got 3"):
        Gallery(CHEST, np.arange(3))


def test_no_queries_have_no_matches() -> None:
    found = CopySearch(whole_images=False).fit(Gallery(CHEST)).search(CHEST[:0])
    assert len(found) == 0 and found.candidates.shape == (0, 5)


def test_own_patient_is_passed_over_and_pairs_stand_alone() -> None:
    patients = np.arange(24) // 2
    search = CopySearch().fit(Gallery(CHEST, patients))
    found = search.search(CHEST[:4], patients=patients[:4])
    assert not (patients[found.candidates[:, :3]] == patients[:4, None]).any()
    pairs = search.score(CHEST[:2], np.array([[5], [0]]), patients[:2])
    assert pairs.candidates.tolist() == [[5, -1, -1, -1, -1], [0, -1, -1, -1, -1]]


def test_a_call_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = CopySearch(whole_images=False).fit(Gallery(CHEST), Runner(block=2))
    whole, store = search.search(OTHERS), tmp_path / "matches.npz"
    seen: list[int] = []
    block = CopySearch._block

    def counted(self: CopySearch, *arguments: torch.Tensor | None) -> Matches:
        seen.append(1)
        if len(seen) == stop:
            raise KeyboardInterrupt
        return block(self, *arguments)

    monkeypatch.setattr(CopySearch, "_block", counted)
    monkeypatch.setattr(module, "SAVE_EVERY", 2)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        search.search(OTHERS, store)
    content, stop = store.read_bytes(), 0

    def again(queries: np.ndarray) -> int:
        seen.clear()
        resumed = search.search(queries, store)
        assert len(resumed) == len(queries)
        if len(queries) == len(whole):
            same(resumed, whole)
        return len(seen)

    assert again(OTHERS) == 1 and again(OTHERS) == 0
    # Damaged, of other queries, or of another search: not used.
    store.write_bytes(content[:400] + bytes([content[400] ^ 1]) + content[401:])
    assert again(OTHERS) == 3 and again(OTHERS[:5]) == 3
    search = CopySearch([ShapeRetriever(templates=4)], whole_images=False).fit(Gallery(CHEST), Runner(block=2))
    assert again(OTHERS[:5]) == 3


def test_matches_of_another_encoder_are_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    block = CopySearch._block
    monkeypatch.setattr(CopySearch, "_block", lambda self, *given: (seen.append(1), block(self, *given))[1])
    for encoder in (flat, flat, lambda images: images.flatten(1).flip(1) ** 2):
        seen.append(0)
        search = CopySearch([EmbeddingRetriever(encoder)], whole_images=False).fit(Gallery(CHEST))
        search.search(OTHERS, tmp_path / "matches.npz")
    assert seen == [0, 1, 0, 0, 1]


def test_a_block_of_queries_gives_what_each_gives_alone() -> None:
    search = CopySearch().fit(Gallery(CHEST), Runner(block=7))
    queries = plant(CHEST[:8], "rotation", 0)
    together = search.search(queries)
    for row in (0, 6, 7):
        alone = search.search(queries[row : row + 1])
        assert alone.candidates[0, 0] == together.candidates[row, 0]
        np.testing.assert_allclose(alone.similarity[0], together.similarity[row], atol=1e-4)


def test_look_ups_of_the_same_queries_are_merged() -> None:
    first, second = Matches.empty(1, 2, 2, 3), Matches.empty(1, 2, 2, 3)
    first.candidates[0], first.similarity[0] = (4, 7), (0.9, 0.2)
    second.candidates[0], second.similarity[0] = (7, 4), (0.8, 0.5)
    merged = Matches.best_of([first, second])
    assert merged.candidates.tolist() == [[4, 7, -1, -1]]
    np.testing.assert_allclose(merged.similarity, [[0.9, 0.8, -1, -1]])


def test_the_reranker_is_asked_for_the_nearest_whole_image_in_any_case() -> None:
    asked: list[torch.Tensor] = []

    class Watched(RegisteredReranker):
        def __call__(
            self, queries: torch.Tensor, candidates: torch.Tensor, kept: torch.Tensor | None, runner: Runner
        ) -> ScoredBlock:
            if kept is not None:
                asked.append(kept)
                assert bool((candidates[:, :, None] == kept[:, None]).any(dim=1).all())
            return super().__call__(queries, candidates, kept, runner)

    CopySearch(reranker=Watched()).fit(Gallery(CHEST)).search(CHEST[5:7])
    assert bool((asked[-1] == torch.tensor([[5], [6]])).any(dim=1).all())


def ends(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)[:, ::7]


def test_embeddings_at_hand_are_those_of_the_first_encoder_alone() -> None:
    first, second = EmbeddingRetriever(flat, neighbours=2), EmbeddingRetriever(ends, neighbours=2)
    gallery = Gallery(CHEST, embeddings=flat(torch.from_numpy(CHEST)).numpy())
    CopySearch([first, second], whole_images=False).fit(gallery)
    found = second(torch.from_numpy(CHEST), Runner())[:, 0]
    assert found.tolist() == list(range(len(CHEST))) and first.vectors.shape != second.vectors.shape


class Constant:
    """A reranker of somebody else."""

    refined = 2

    def __init__(self, value: float) -> None:
        self.values = [value]  # no number that could be seen from outside

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        pass

    def __call__(
        self, queries: torch.Tensor, candidates: torch.Tensor, kept: torch.Tensor | None, runner: Runner
    ) -> Scored:
        chosen = candidates[:, :2]
        n, r = chosen.shape
        values = torch.full((n, r), self.values[0], dtype=torch.float64)
        return ScoredBlock.of(chosen, values, torch.zeros(n, r, 2, 3), torch.zeros(n, r, 3), chosen < -1, 2)


class Identified(Constant):
    def identity(self) -> list[float]:
        return self.values


def test_what_is_kept_of_one_part_is_not_taken_for_anothers(tmp_path: Path) -> None:
    def search(reranker: Constant) -> CopySearch:
        return CopySearch([ShapeRetriever()], reranker, whole_images=False).fit(Gallery(CHEST))

    with pytest.raises(ValueError, match=r"Constant has no method identity\(\)"):
        search(Constant(0.5)).search(OTHERS, tmp_path / "kept.npz")
    for value in (0.5, 0.9):
        found = search(Identified(value)).search(OTHERS, tmp_path / "kept.npz")
        assert found.similarity[0, 0] == value


def test_what_is_no_number_is_refused() -> None:
    broken = CHEST.copy()
    broken[5, 0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="images of a gallery must be finite, number 5 is not"):
        Gallery(broken)
    search = CopySearch([ShapeRetriever()], whole_images=False).fit(Gallery(CHEST))
    with pytest.raises(ValueError, match="queries must be finite, number 5 is not"):
        search.search(broken)


def test_images_that_are_not_in_the_unit_range_are_refused() -> None:
    """Bytes beside fractions would match nothing, and signed values be clipped."""
    bytes_of = (255 * CHEST).round().astype(np.uint8)
    signed = 2 * CHEST - 1
    search = CopySearch([ShapeRetriever()], whole_images=False).fit(Gallery(CHEST))
    parts = PartSearch().fit(Gallery(CHEST))
    with pytest.raises(ValueError, match="this search has no gallery yet"):
        PartSearch().search(CHEST)
    for wrong, words in ((bytes_of, r"uint8\): scale all of them alike, divide bytes by 255"), (signed, "scale all")):
        for look, what in (
            (Gallery, "images of a gallery"), (search.search, "queries"), (parts.search, "queries"),
            (lambda images: compare_pair(images[0], CHEST[0]), "the synthetic image of a pair"),
            (lambda images: compare_pair(CHEST[0], images[0]), "the training image of a pair"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=rf"{what} must have values in \[0, 1\], number .*{words}"):
                look(wrong)
    overshot = np.clip(CHEST * 1.1 - 0.05, -0.05, 1.05)
    assert len(Gallery(overshot)) == len(CHEST)
