# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Encoders, retrievers and rerankers of others: what they return wrongly is said with their name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import EmbeddingRetriever
from monai_memo.search.gallery import Gallery
from monai_memo.search.runner import Runner
from monai_memo.search.shape_retriever import ShapeRetriever

IMAGES = np.random.default_rng(0).random((6, 1, 32, 32), dtype=np.float32)


class MyRetriever:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        pass

    def __call__(self, queries: torch.Tensor, runner: Runner) -> Any:
        return self.answer


def look_up(answer: Any) -> list[int]:
    search = CopySearch([MyRetriever(answer)], whole_images=False).fit(Gallery(IMAGES))
    found: list[int] = search.search(IMAGES[2:4]).candidates[:, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.zeros(2, dtype=torch.int64), r"shape \(2, k\), a row for each query, got int64 of shape \(2,\)"),
        (torch.zeros(3, 1, dtype=torch.int64), r"shape \(2, k\).* got int64 of shape \(3, 1\)"),
        (np.zeros((2, 1), dtype=np.int64), "got ndarray"),
        (None, "got NoneType"),
        (torch.zeros(2, 1), "whole numbers .* got float32"),
        (torch.zeros(2, 1, dtype=torch.bool), "whole numbers .* got bool"),
        (torch.tensor([[0], [6]]), r"from 0 to 5 \(the gallery has 6 images\).*; got 6"),
        (torch.tensor([[0], [-2]]), "or -1 to fill rows up; got -2"),
    ],
)
def test_a_retriever_that_returns_nonsense_is_named(answer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"the retriever MyRetriever must give .*{message}"):
        look_up(answer)


def test_whole_numbers_of_any_width_and_empty_rows_are_taken() -> None:
    assert look_up(torch.tensor([[1, 2], [3, -1]], dtype=torch.int32)) == [2, 3]
    assert look_up(torch.zeros(2, 0, dtype=torch.int64)) == [-1, -1]


class Placing(MyRetriever):
    def placed(self, queries: torch.Tensor, runner: Runner) -> Any:
        return SimpleNamespace(candidates=self.answer, transforms=torch.zeros(2, 1, 3, 4))


def test_transforms_of_other_dimensions_are_refused() -> None:
    search = CopySearch([Placing(torch.tensor([[0], [1]]))], whole_images=False).fit(Gallery(IMAGES))
    with pytest.raises(ValueError, match=r"retriever Placing must give transforms of shape \(2, 1, 2, 3\)"):
        search.search(IMAGES[:2])


class MyReranker:
    refined = 2

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        pass

    def __call__(self, queries: torch.Tensor, candidates: torch.Tensor, kept: Any, runner: Runner) -> Any:
        n = len(queries)
        return SimpleNamespace(
            candidates=torch.zeros(n, 2, dtype=torch.int64), similarity=torch.zeros(n, 3),
            transforms=torch.zeros(n, 2, 2, 3), profiles=torch.zeros(n, 2, 1),
        )  # fmt: skip


def test_a_reranker_that_returns_nonsense_is_named() -> None:
    search = CopySearch([ShapeRetriever()], MyReranker()).fit(Gallery(IMAGES))
    with pytest.raises(ValueError, match=r"reranker MyReranker must give similarity of shape \(2, 2\) .*\(2, 3\)"):
        search.search(IMAGES[:2])


def test_an_encoder_that_returns_maps_is_named() -> None:
    with pytest.raises(ValueError, match=r"the encoder AvgPool2d must give a tensor of shape \(6, dim\)"):
        CopySearch([EmbeddingRetriever(torch.nn.AvgPool2d(4))]).fit(Gallery(IMAGES))


def by_length(images: torch.Tensor) -> torch.Tensor:
    vectors = images.flatten(1)
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_an_encoder_that_gives_no_numbers_for_a_blank_image_is_named() -> None:
    """The vector of one such training image would be the nearest to every query."""
    blank = np.concatenate([IMAGES[:5], np.zeros_like(IMAGES[:1])])
    with pytest.raises(ValueError, match="the encoder by_length must give finite vectors"):
        CopySearch([EmbeddingRetriever(by_length)]).fit(Gallery(blank))
    search = CopySearch([EmbeddingRetriever(by_length)]).fit(Gallery(IMAGES))
    with pytest.raises(ValueError, match="the encoder by_length must give finite vectors"):
        search.search(blank)


def test_embeddings_that_are_no_numbers_are_refused() -> None:
    vectors = np.eye(6, dtype=np.float32)
    vectors[4] = np.nan
    with pytest.raises(ValueError, match="embeddings of a gallery must be finite, number 4 is not"):
        Gallery(IMAGES, embeddings=vectors)


@pytest.mark.parametrize("first", [7_000_000_000, -30])
def test_patients_may_have_any_whole_numbers(first: int) -> None:
    many = np.random.default_rng(1).random((24, 1, 16, 16), dtype=np.float32)
    numbers = [first + one for one in range(24)]
    given = CopySearch([ShapeRetriever()]).fit(Gallery(many, numbers))  # type: ignore[arg-type]
    counted = CopySearch([ShapeRetriever()]).fit(Gallery(many))
    assert given.scale is not None and given.scale == counted.scale
    own = given.search(many[3:5], patients=np.array(numbers[3:5]))
    np.testing.assert_array_equal(own.candidates, counted.search(many[3:5], patients=np.arange(3, 5)).candidates)
    assert not (own.candidates == np.array([[3], [4]])).any()


def test_patients_that_are_no_numbers_or_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match=r"whole numbers.* got <U1 of shape \(6,\); Gallery\.of takes"):
        Gallery(IMAGES, np.array(list("abcdef")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"patients must be whole numbers.* got float64"):
        Gallery(IMAGES, np.linspace(0, 1, 6))  # type: ignore[arg-type]
    search = CopySearch([ShapeRetriever()]).fit(Gallery(IMAGES))
    with pytest.raises(ValueError, match="patients must be as many as the queries, 3, got 1"):
        search.search(IMAGES[:3], patients=np.array([0]))


def test_frozen_and_exported_networks_are_encoders() -> None:
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(64, 16))
    network.eval().requires_grad_(False)
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(network, (torch.zeros(2, 1, 32, 32),), dynamic_shapes=batch).module()
    frozen = torch.jit.freeze(torch.jit.trace(network, torch.zeros(2, 1, 32, 32)))
    for one in (network, frozen, exported):
        retriever = EmbeddingRetriever(one, neighbours=1)
        retriever.fit(Gallery(IMAGES), Runner())
        assert retriever(torch.from_numpy(IMAGES[2:4]), Runner())[:, 0].tolist() == [2, 3]


def test_a_search_without_a_gallery_says_so() -> None:
    search = CopySearch([ShapeRetriever()])
    assert len(search) == 0
    with pytest.raises(ValueError, match=r"no gallery yet: call fit\(Gallery"):
        search.search(IMAGES)
    with pytest.raises(ValueError, match="no gallery yet"):
        search.score(IMAGES, np.zeros((6, 1), dtype=np.int64), np.arange(6))
