# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.data.planting import plant
from monai_memo.search import inverted_file
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.inverted_file import InvertedFile
from monai_memo.search.runner import Runner
from monai_memo.search.score_norm import WholeImages
from monai_memo.search.shape_retriever import ShapeRetriever


def groups(n: int = 4000, values: int = 16, seed: int = 0) -> torch.Tensor:
    """Vectors that lie in sixty heaps, as images of few patients do."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((60, values))
    return torch.from_numpy((middles[rng.integers(60, size=n)] + 0.2 * rng.standard_normal((n, values))).astype("f4"))


@pytest.mark.parametrize("products", [False, True])
def test_it_finds_what_comparing_with_all_finds(products: bool) -> None:
    vectors, queries = groups(), groups(50, seed=0) + 0.01
    values, places = InvertedFile(vectors, Runner(), products).nearest(queries, 5)
    every = queries @ vectors.T if products else torch.cdist(queries, vectors) ** 2
    wanted, where = every.topk(5, largest=products)
    kept = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(where.tolist(), places.tolist(), strict=True)])
    assert kept > 0.9
    np.testing.assert_allclose(values[:, 0], wanted[:, 0], rtol=0.02, atol=0.02)


def test_groups_that_hold_too_few_do_not_shorten_the_answer() -> None:
    vectors = groups()
    found = InvertedFile(vectors, Runner(), probed=1)
    _, places = found.nearest(vectors[:3], 3000)
    assert places.min() >= 0 and all(len(set(row)) == 3000 for row in places.tolist())


def test_the_seed_decides() -> None:
    vectors, queries = groups(), groups(200, seed=1)
    first, again, other = (InvertedFile(vectors, Runner(seed=s), probed=2).nearest(queries, 20)[1] for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_very_large_gallery_gives_the_matches_of_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With so few images all groups are looked into, so that nothing may be lost on the way."""
    chests = np.stack([chest_phantom(i, (32, 32)) for i in range(60)])
    queries = np.concatenate(
        [plant(chests[:5], "shift", 0), np.stack([chest_phantom(90 + i, (32, 32)) for i in range(5)])]
    )
    monkeypatch.setattr("monai_memo.search.score_norm.EXACT_UP_TO", 10)

    def search() -> CopySearch:
        return CopySearch([ShapeRetriever(exact_up_to=10)]).fit(Gallery(chests), Runner())

    large = search().search(queries)
    monkeypatch.setattr(inverted_file, "FROM", 20)
    made = search()
    assert made.whole_images.file is not None and made.layouts.file is not None and not made.layouts.exact
    assert isinstance(made.retrievers[0], ShapeRetriever) and made.retrievers[0].file is not None
    very_large = made.search(queries)
    np.testing.assert_array_equal(very_large.candidates[:, 0], large.candidates[:, 0])
    np.testing.assert_allclose(very_large.similarity[:, 0], large.similarity[:, 0], atol=1e-3)


def test_whole_images_are_normalised_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = Gallery(np.stack([chest_phantom(i, (32, 32)) for i in range(60)]), np.arange(60) // 2)
    for layout in (False, True):
        monkeypatch.setattr(inverted_file, "FROM", 1000)
        every, found = WholeImages(layout), WholeImages(layout)
        every.fit(gallery, Runner())
        monkeypatch.setattr(inverted_file, "FROM", 20)
        found.fit(gallery, Runner())
        monkeypatch.setattr(inverted_file, "FROM", 1000)
        own = torch.arange(8) // 2
        for patients in (None, own):
            first, second = (one.closeness(every.vectors[:8].float(), patients) for one in (every, found))
            assert torch.equal(first.nearest, second.nearest)
            np.testing.assert_allclose(first.value, second.value, rtol=1e-5)
