# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A search by several ranks, threads in place of processes: the matches of one, and no block twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributed import HashStore

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.planting import plant
from monai_memo.progress import Progress
from monai_memo.search import copy_search as module
from monai_memo.search import gallery
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import EmbeddingRetriever
from monai_memo.search.gallery import Gallery
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.matches import NAMES, Matches
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.workspace.team import Team

CHEST = np.stack([chest_phantom(i, (32, 32)) for i in range(24)])
QUERIES = np.concatenate([plant(CHEST[:6], "shift", 0), np.stack([chest_phantom(100 + i, (32, 32)) for i in range(5)])])


def same(first: Matches, second: Matches) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def fitted(runner: Runner, exact_up_to: int = 2048) -> CopySearch:
    """With 0 the shapes are looked through as in large galleries."""
    by_pixels = EmbeddingRetriever(lambda images: images.flatten(1), neighbours=4)
    return CopySearch([by_pixels, ShapeRetriever(exact_up_to=exact_up_to)]).fit(Gallery(CHEST), runner)


def of_ranks(work: Path, world: int, store: Path | None) -> list[Matches]:
    """Matches that each rank has in the end."""
    words = HashStore()
    words.set_timeout(timedelta(seconds=60))

    def rank(number: int) -> Matches:
        team = Team(words, number, world)
        team._folder = work / "ranks"
        return fitted(Runner(block=2, team=team)).search(QUERIES, store)

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(rank, range(world)))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 1000])
@pytest.mark.parametrize("done", [0, 7, 32])
def test_shares_are_whole_blocks_and_nothing_is_left_out(count: int, done: int) -> None:
    done = min(done, count)
    for world in (1, 2, 3, 7):
        shares = [Runner(block=16, shard=(rank, world)).mine(count, done) for rank in range(world)]
        assert shares[0].start == done and shares[-1].stop == count
        for before, after in pairwise(shares):
            assert before.stop == after.start
            assert before.stop % 16 == 0 or before.stop in (done, count)
        blocks = [-(-share.stop // 16) - share.start // 16 for share in shares if share.stop > share.start]
        assert not blocks or max(blocks) - min(blocks) <= 2


@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_find_what_one_process_finds(tmp_path: Path, world: int) -> None:
    """Eight ranks are more than there are blocks: some have nothing to do."""
    one = fitted(Runner(block=2))
    assert one.scale is not None
    expected = one.search(QUERIES)
    for found in of_ranks(tmp_path, world, tmp_path / "kept.npz"):
        same(found, expected)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("images", [7, 30])
def test_ranks_share_out_what_is_derived_from_a_gallery(
    images: int, mapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven images are made by all ranks, thirty by ten of each."""
    monkeypatch.setattr(gallery, "MAPPED_FROM", 0 if mapped else 1 << 30)
    monkeypatch.setattr(Gallery, "blocks", lambda self, runner: list(runner.blocks(len(self), 2)))
    pixels = np.random.default_rng(0).random((images, 1, 4, 4), dtype=np.float32)
    words, made = HashStore(), [0, 0, 0]
    words.set_timeout(timedelta(seconds=60))

    def rank(number: int) -> torch.Tensor:
        team = Team(words, number, 3)
        team._folder = tmp_path / "ranks"

        def make(block: torch.Tensor) -> torch.Tensor:
            made[number] += len(block)
            return block.mean(dim=1)

        return Gallery(pixels).derive("means", make, Runner(team=team, folder=tmp_path))

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(rank, range(3)):
            np.testing.assert_array_equal(found.numpy(), pixels[:, 0])
    assert (tmp_path / "means.mapped").is_file() is mapped
    assert made == ([7, 7, 7] if images == 7 else [10, 12, 12])  # the first block tells all of them the size


def test_what_is_derived_from_a_large_gallery_is_told_while_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []

    class Bar(Progress):
        def __exit__(self, *error: object) -> None:
            told.append((self.what, self.done, self.total or 0))

    monkeypatch.setattr("monai_memo.search.runner.Progress", Bar)
    monkeypatch.setattr(Gallery, "blocks", lambda self, runner: list(runner.blocks(len(self), 7)))
    LocalFeatureRetriever().fit(Gallery(CHEST), Runner())
    assert told == [("keypoints", 24, 24), ("index of keypoints", 24, 24)]


def test_a_share_without_a_team_is_given_alone() -> None:
    expected = fitted(Runner(block=2)).search(QUERIES)
    parts = [fitted(Runner(block=2, shard=(rank, 3))).search(QUERIES) for rank in range(3)]
    assert [len(part) for part in parts] == [4, 4, 3]
    same(Matches.concat(parts), expected)


def test_ranks_go_on_from_what_each_of_them_has_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = of_ranks(tmp_path, 2, tmp_path / "kept.npz")[0]
    (tmp_path / "kept.npz").unlink()
    shares = sorted(path.name for path in tmp_path.glob("kept.*.npz"))
    assert shares == ["kept.0-6.npz", "kept.6-11.npz"]
    (tmp_path / "kept.6-11.npz").unlink()  # as of a rank that was killed before it had kept anything
    looked_up = []
    original = CopySearch._block

    def block(self: CopySearch, queries: torch.Tensor, *rest: torch.Tensor | None) -> Matches:
        looked_up.append(len(queries))
        return original(self, queries, *rest)

    monkeypatch.setattr(CopySearch, "_block", block)
    for found in of_ranks(tmp_path, 2, tmp_path / "kept.npz"):
        same(found, expected)
    assert sum(looked_up) == 5


def test_ranks_go_on_from_what_one_process_has_kept_and_the_other_way_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAVE_EVERY", 1)
    original, left = CopySearch._block, [3]

    def block(self: CopySearch, queries: torch.Tensor, *rest: torch.Tensor | None) -> Matches:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(self, queries, *rest)

    expected = fitted(Runner(block=2)).search(QUERIES)
    monkeypatch.setattr(CopySearch, "_block", block)
    with pytest.raises(KeyboardInterrupt):
        fitted(Runner(block=2)).search(QUERIES, tmp_path / "kept.npz")
    left[0] = 3  # blocks that are missing: six queries are kept, five are not
    for found in of_ranks(tmp_path, 2, tmp_path / "kept.npz"):
        same(found, expected)
    assert left[0] == 0
    same(fitted(Runner(block=2)).search(QUERIES, tmp_path / "kept.npz"), expected)


@pytest.mark.parametrize("world", [1, 2])
def test_a_gallery_that_is_mapped_from_files_gives_what_one_in_memory_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: int
) -> None:
    monkeypatch.setattr(gallery, "MAPPED_FROM", 0)
    expected = fitted(Runner(block=2), 0).search(QUERIES)
    words = HashStore()
    words.set_timeout(timedelta(seconds=60))

    def rank(number: int) -> tuple[Matches, CopySearch]:
        team = Team(words, number, world)
        team._folder = tmp_path / "ranks"
        search = fitted(Runner(block=2, folder=tmp_path, team=None if world == 1 else team), 0)
        return search.search(QUERIES), search

    with ThreadPoolExecutor(world) as pool:
        results = list(pool.map(rank, range(world)))
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.mapped")}
    assert sizes["whole images.mapped"] == 24 * 32 * 32 * 4 and set(sizes) == {
        "whole images.mapped",
        "boxes.mapped",
        "coarse rows.mapped",
        "layouts.mapped",
    }
    for found, search in results:
        same(found, expected)
        # Another file in its place is seen: the values are not in memory.
        assert torch.equal(search.whole_images.vectors, fitted(Runner(block=2)).whole_images.vectors)
    with open(tmp_path / "whole images.mapped", "r+b") as stream:
        stream.write(b"\0" * 4096)
    assert all(not search.whole_images.vectors[0].any() for _, search in results)


def test_a_second_search_in_the_same_folder_leaves_the_first_one_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MAPPED_FROM", 0)
    first = fitted(Runner(block=2, folder=tmp_path))
    expected = first.search(QUERIES)
    CopySearch([ShapeRetriever()]).fit(Gallery(1 - CHEST[:21]), Runner(folder=tmp_path))
    same(first.search(QUERIES), expected)
