# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from monai_memo.data.ladder import Planted, altered
from monai_memo.data.phantom_skin import skin_phantom
from monai_memo.data.phantoms import chest_phantom
from monai_memo.search.colours import fainter
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.gallery import Gallery
from monai_memo.search.local_features import LocalFeatureRetriever
from monai_memo.search.matches import Matches
from monai_memo.search.pair import compare_pair
from monai_memo.search.parts import PartSearch
from monai_memo.search.runner import Runner
from monai_memo.search.score_norm import WholeImages, evened
from monai_memo.search.shape_retriever import ShapeRetriever

Images = NDArray[np.float32]
N, COPIES, UNSEEN = 40, 12, 30


@pytest.fixture(scope="module")
def skins() -> Images:
    return np.stack([skin_phantom(i, (48, 48)) for i in range(N)])


@pytest.fixture(scope="module")
def search(skins: Images) -> CopySearch:
    return CopySearch([ShapeRetriever(), LocalFeatureRetriever()]).fit(Gallery(skins))


@pytest.fixture(scope="module")
def tau(search: CopySearch) -> float:
    unseen = np.stack([skin_phantom(1000 + i, (48, 48)) for i in range(UNSEEN)])
    return float(np.quantile(search.search(unseen).similarity[:, 0], 0.95))


def turned(images: Images, degrees: float) -> Images:
    """Other colours with the same mean of the channels: turned about the axis of grey."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)) / np.sqrt(3)
    shared = (1 - cosine) / 3
    around = np.array([
        [cosine + shared, shared - sine, shared + sine],
        [shared + sine, cosine + shared, shared - sine],
        [shared - sine, shared + sine, cosine + shared],
    ])  # fmt: skip
    moved = np.einsum("ij,njyx->niyx", around, images.astype(np.float64))
    return moved.astype(np.float32)


def jittered(images: Images, rng: np.random.Generator) -> Images:
    """As cameras and augmentations change colours: gains of the channels, saturation, hue, brightness."""
    changed = turned(images, 15 * float(rng.choice([-1, 1]))) * rng.uniform(0.9, 1.1, (len(images), 3, 1, 1))
    middle = changed.mean(axis=1, keepdims=True)
    changed = (middle + (changed - middle) * rng.uniform(0.7, 1.3, (len(images), 1, 1, 1))) * 0.9
    return changed.clip(0, 1).astype(np.float32)


def test_the_same_grey_in_other_colours_is_no_copy(search: CopySearch, skins: Images, tau: float) -> None:
    for other in (turned(skins[:COPIES], 180), skins[:COPIES, ::-1].copy()):
        np.testing.assert_allclose(other.mean(axis=1), skins[:COPIES].mean(axis=1), atol=1e-5)
        found = search.search(other)
        assert (found.similarity[:, 0] <= tau).all()
        every = np.maximum(np.maximum(found.similarity, found.whole_image), found.lead)
        assert (every[found.candidates == np.arange(COPIES)[:, None]] < 0.1).all()  # of the image with the same grey
        assert (found.by_places() < tau).all()


def test_two_stains_of_one_structure_are_no_copies_of_one_another() -> None:
    structure = np.stack([chest_phantom(i, (48, 48)) for i in range(30)])
    stains = {name: np.array(colour)[None, :, None, None] for name, colour in
              (("brown", (0.55, 0.25, 0.1)), ("blue", (0.2, 0.25, 0.45)), ("bluish", (0.24, 0.25, 0.41)))}  # fmt: skip
    stained = {name: (0.95 - structure * (0.95 - colour)).astype(np.float32) for name, colour in stains.items()}
    np.testing.assert_allclose(stained["blue"].mean(axis=1), stained["brown"].mean(axis=1), atol=1e-6)
    search = CopySearch([ShapeRetriever()]).fit(Gallery(stained["blue"]))
    same, other, near = (search.search(stained[name][:8]).similarity[:, 0] for name in ("blue", "brown", "bluish"))
    assert (same > 0.99).all() and (near > 0.99).all() and (other < 0.1).all()


def test_copies_with_slightly_other_colours_are_found(search: CopySearch, skins: Images, tau: float) -> None:
    rng = np.random.default_rng(0)
    found = search.search(jittered(skins[:COPIES], rng))
    assert (found.candidates[:, 0] == np.arange(COPIES)).all() and (found.similarity[:, 0] > tau).all()


@pytest.mark.parametrize(
    ("kind", "strength"),
    [("flip", 0), ("rotation", 10), ("noise", 0.08), ("jpeg", 90), ("blur", 0.02), ("gamma", 0.5), ("erasing", 0.25),
     ("replacement", 0.25), ("inverted", 0)],
)  # fmt: skip
def test_altered_copies_are_found_in_colour(
    search: CopySearch, skins: Images, tau: float, kind: str, strength: float
) -> None:
    copies = altered(skins[:COPIES], Planted(kind, float(strength)), 3)
    found = search.search(copies)
    right = (found.candidates[:, 0] == np.arange(COPIES)) & (found.similarity[:, 0] > tau)
    assert right.mean() >= 0.9


def test_copies_without_colours_are_found(search: CopySearch, skins: Images, tau: float) -> None:
    faded = np.repeat(skins[:COPIES].mean(axis=1, keepdims=True), 3, axis=1)
    found = search.search(faded)
    assert (found.candidates[:, 0] == np.arange(COPIES)).all() and (found.similarity[:, 0] > tau).all()


def test_the_training_image_with_the_right_colours_comes_first(skins: Images) -> None:
    both = np.concatenate([turned(skins[:20], 180), skins[:20]])
    search = CopySearch([ShapeRetriever()]).fit(Gallery(both, np.tile(np.arange(20), 2)))
    found = search.search(skins[:6])
    assert found.candidates[:, 0].tolist() == list(range(20, 26))
    assert (np.diff(found.similarity, axis=1) <= 0).all()  # best first


def test_grey_images_in_three_channels_are_found_as_in_one() -> None:
    chests = np.stack([chest_phantom(i, (48, 48)) for i in range(24)])
    queries = np.stack([chest_phantom(i, (48, 48), visit=1) for i in range(6)])
    one = CopySearch([ShapeRetriever()]).fit(Gallery(chests)).search(queries)
    three = CopySearch([ShapeRetriever()]).fit(Gallery(np.repeat(chests, 3, axis=1)))
    found = three.search(np.repeat(queries, 3, axis=1))
    np.testing.assert_allclose(found.similarity, one.similarity, atol=1e-3)
    assert found.candidates[:, 0].tolist() == one.candidates[:, 0].tolist()


def test_whole_images_are_compared_in_colour_and_grey_ones_in_grey(skins: Images) -> None:
    both = np.concatenate([turned(skins[:20], 60), skins[:20]])
    whole = WholeImages()
    whole.fit(Gallery(both), Runner())
    assert whole.vectors.shape[1] == 3 * 48 * 48
    queries = torch.from_numpy(skins[:6, ..., ::-1].copy())  # mirrored
    errors, places = whole._neighbours(whole.vectors_of(queries), 2, None)
    assert places[:, 0].tolist() == list(range(20, 26)) and (errors[:, 0] > 10).all() and (errors[:, 1] < 10).all()
    grey, one = skins.mean(axis=1, keepdims=True), WholeImages()
    one.fit(Gallery(grey), Runner())
    flat = evened(torch.from_numpy(grey)).flatten(1) / 48
    assert torch.equal(one.vectors, flat) and torch.equal(
        one.mirrored(flat)[0].view(48, 48), flat[0].view(48, 48).flip(1)
    )


def test_regions_in_other_colours_are_no_copies_in_part(skins: Images) -> None:
    search = PartSearch().fit(Gallery(skins))
    unseen = np.stack([skin_phantom(2000 + i, (48, 48)) for i in range(COPIES)])
    tau = float(np.quantile(search.search(unseen).score, 0.95))
    joined, other = unseen.copy(), unseen.copy()
    joined[:, :, 8:40, 8:40] = skins[:COPIES, :, 8:40, 8:40]
    other[:, :, 8:40, 8:40] = turned(skins[:COPIES], 180)[:, :, 8:40, 8:40]
    copies = search.search(joined)
    assert ((copies.score > tau) & (copies.training == np.arange(COPIES))).mean() > 0.9
    recoloured = search.search(other)
    assert ((recoloured.score > tau) & (recoloured.training == np.arange(COPIES))).mean() < 0.1


def test_one_pair_is_compared_in_colour(skins: Images) -> None:
    assert compare_pair(skins[0, ..., ::-1], skins[0]).similarity > 0.95
    assert compare_pair(turned(skins[:1, ..., ::-1], 180)[0], skins[0]).similarity < 0.1


def test_similarities_that_colours_lower_keep_their_order_and_what_is_no_match_stays() -> None:
    values = np.array([-1.0, -0.2, 0.0, 0.5, 0.9, 1.0])
    np.testing.assert_array_equal(fainter(values, np.ones(6)), values)
    half = fainter(values, np.full(6, 0.5))
    assert (np.diff(half) > 0).all() and half[4] == pytest.approx(np.tanh(np.arctanh(0.9) / 2))
    assert half[:3].tolist() == [-1.0, -0.2, 0.0] and fainter(values, np.zeros(6))[4] == 0


def test_queries_without_any_candidate_stay_without(search: CopySearch, skins: Images) -> None:
    found = search.score(skins[:2], np.full((2, 1), -1), np.arange(2))
    assert isinstance(found, Matches) and (found.candidates == -1).all() and (found.similarity == -1).all()
