# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The search runs on a graphics card as a whole. Where none is at hand, a device that only knows shapes stands in.

Builds of PyTorch without CUDA cannot index even fake tensors of a card: there the device "meta" stands in for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.registration import affine, correlation, filters, gauss_newton
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import EmbeddingRetriever, query_views
from monai_memo.search.gallery import Gallery
from monai_memo.search.keypoints import Keypoints
from monai_memo.search.local_features import transforms_of
from monai_memo.search.placed import Placed
from monai_memo.search.runner import Runner
from monai_memo.search.score_norm import WholeImages
from monai_memo.search.shape_retriever import ShapeRetriever
from monai_memo.search.volume_retriever import VolumeRetriever

CARD = "cuda:0" if torch.cuda._is_compiled() else "meta"


@pytest.fixture
def fake_card() -> Iterator[None]:
    """Tensors on another device, without content: a tensor on the wrong device is an error, asking for values too."""
    tables = (
        affine._positions, affine.linear_transforms, affine.mirror, affine.kept_on, affine._half_lengths,
        correlation._taper, correlation._phase, correlation._inverse, correlation._numbers, filters.gaussian,
        gauss_newton._basis, query_views,
    )  # fmt: skip
    for table in tables:
        table.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield
    for table in tables:
        table.cache_clear()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("exact", [True, False])
def test_a_block_of_queries_goes_through_without_leaving_the_card(dims: int, exact: bool, fake_card: None) -> None:
    phantom, size = (chest_phantom, 64) if dims == 2 else (knee_phantom, 32)
    pixels = np.stack([phantom(i, (size,) * dims) for i in range(24)])
    weights = torch.empty(size**dims, 8, device=CARD)
    shape = ShapeRetriever(exact_up_to=100 if exact else 4, pool=12)
    retrievers = [EmbeddingRetriever(lambda images: images.flatten(1) @ weights), shape]
    retrievers += [VolumeRetriever()] if dims == 3 else []
    search, card = CopySearch(retrievers, whole_images=False), Runner.on(CARD)
    gallery = Gallery(pixels)
    search.fit(gallery, card)
    search.whole_images, search.layouts = WholeImages(), WholeImages(layout=True)
    search.whole_images.fit(gallery, card)
    search.layouts.fit(gallery, card)
    search.scale = object()  # type: ignore[assignment]  # measured from values, which a fake card does not have
    queries = torch.empty(4, 1, *(size,) * dims, device=CARD)
    scored, whole, lead = search.block(queries)
    assert scored.similarity.device == torch.device(CARD) and scored.candidates.shape == (4, 5)
    assert whole is not None and whole.device == torch.device(CARD)
    assert lead is not None and lead.device == torch.device(CARD) and lead.shape == (4, 5, 3)
    assert scored.transforms.shape == (4, 5, dims, dims + 1)


class Placing:
    """Stands for keypoints, which are looked for on the CPU: what comes of them is on the card."""

    def fit(self, gallery: Gallery, runner: Runner) -> None:
        pass

    def placed(self, queries: torch.Tensor, runner: Runner) -> Placed:
        votes = torch.empty(len(queries), 6, device=CARD)
        agreeing = torch.empty(len(queries), 6, 9, device=CARD).bool()
        places = torch.empty(len(queries), 6, 9, 2, device=CARD)
        return Placed(
            votes.long(), torch.empty(len(queries), 6, 2, 3, device=CARD), votes, votes.bool(), places, agreeing
        )


def test_candidates_that_are_placed_go_through_as_well(fake_card: None) -> None:
    gallery, card = Gallery(np.stack([chest_phantom(i, (64, 64)) for i in range(24)])), Runner.on(CARD)
    search = CopySearch([ShapeRetriever(), Placing()], whole_images=False).fit(gallery, card)  # type: ignore[list-item]
    search.whole_images, search.layouts = WholeImages(), WholeImages(layout=True)
    search.whole_images.fit(gallery, card)
    search.layouts.fit(gallery, card)
    search.scale = object()  # type: ignore[assignment]
    scored, _, lead = search.block(torch.empty(4, 1, 64, 64, device=CARD))
    assert scored.candidates.device == torch.device(CARD) and lead is not None and lead.shape == (4, 5, 3)


def test_keypoints_are_paired_on_the_card(fake_card: None) -> None:
    here, there = (
        Keypoints(
            torch.empty(3, 9, 128, dtype=torch.uint8, device=CARD), torch.empty(3, 9, 4, device=CARD),
            torch.empty(3, dtype=torch.long, device=CARD),
        )
        for _ in range(2)
    )  # fmt: skip
    theta, votes, agreeing = transforms_of(here, there)
    assert theta.shape == (3, 2, 3) and votes.shape == (3,) and agreeing.shape == (3, 9)
    assert {part.device for part in (theta, votes, agreeing)} == {torch.device(CARD)}


def test_a_tensor_on_the_wrong_device_would_be_noticed(fake_card: None) -> None:
    gallery, card = Gallery(np.stack([chest_phantom(i, (64, 64)) for i in range(24)])), Runner.on(CARD)
    retriever = ShapeRetriever()
    retriever.fit(gallery, card)
    with pytest.raises(RuntimeError, match="same device"):
        retriever(torch.empty(4, 1, 64, 64, device="cpu"), card)
