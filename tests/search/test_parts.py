# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.distributed import HashStore

from monai_memo.search.gallery import Gallery
from monai_memo.search.part_score import Crops, means_in, places_of
from monai_memo.search.parts import NOT_SCORED, PartMatches, PartSearch
from monai_memo.search.runner import Runner
from monai_memo.workspace.team import Team

Images = NDArray[np.float32]


def textures(n: int, shape: tuple[int, ...], seed: int) -> Images:
    """Images that have nothing in common but their kind."""
    rng = np.random.default_rng(seed)
    fine, coarse = (
        np.stack([ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for _ in range(n)]) for sigma in (1.0, 4.0)
    )
    values = fine / fine.std() + coarse / coarse.std()
    return ((values - values.min()) / np.ptp(values))[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def training() -> Images:
    return textures(40, (64, 64), 0)


@pytest.fixture(scope="module")
def unseen() -> Images:
    return textures(30, (64, 64), 1)


@pytest.fixture(scope="module")
def search(training: Images) -> PartSearch:
    return PartSearch().fit(Gallery(training))


def test_a_quarter_of_a_training_image_in_another_patients_image_is_found_and_where_it_lies(
    search: PartSearch, training: Images, unseen: Images
) -> None:
    queries = unseen[:3].copy()
    queries[0, :, 32:, :32] = training[11, :, 32:, :32]
    queries[1, :, 10:42, 17:49] = training[5, :, 10:42, 17:49]
    found = search.search(queries)
    assert found.training[:2].tolist() == [11, 5]
    assert found.score[:2].min() > 10 > found.score[2]
    np.testing.assert_allclose(found.regions[0], [[0.5, 1.0], [0.0, 0.5]], atol=0.07)
    np.testing.assert_allclose(found.regions[1], [[10 / 64, 42 / 64], [17 / 64, 49 / 64]], atol=0.1)
    np.testing.assert_allclose(found.transforms[:2], np.eye(2, 3)[None].repeat(2, 0), atol=0.01)


def test_a_quarter_that_was_moved_is_found_with_the_way_it_went(
    search: PartSearch, training: Images, unseen: Images
) -> None:
    query = unseen[3:4].copy()
    query[0, :, 8:40, 30:62] = training[20, :, 32:64, 2:34]
    found = search.search(query)
    assert found.training[0] == 20
    # In units of half the length: 24 of 64 pixels down, 28 to the left, last axis first.
    np.testing.assert_allclose(found.transforms[0, :, 2], [-2 * 28 / 64, 2 * 24 / 64], atol=0.01)


def test_a_mirrored_quarter_is_found(search: PartSearch, training: Images, unseen: Images) -> None:
    query = unseen[4:5].copy()
    query[0, :, :32, :32] = training[9, :, :, ::-1][:, :32, :32]
    found = search.search(query)
    assert found.training[0] == 9
    np.testing.assert_allclose(found.transforms[0, :, :2], [[-1, 0], [0, 1]], atol=0.02)


def test_the_region_of_a_half_is_larger_than_a_quarter(search: PartSearch, training: Images, unseen: Images) -> None:
    query = unseen[5:6].copy()
    query[0, :, :, 32:] = training[2, :, :, 32:]
    found = search.search(query)
    assert found.training[0] == 2
    np.testing.assert_allclose(found.regions[0], [[0, 1], [0.5, 1]], atol=0.07)
    assert found.shares[0] == pytest.approx(0.5, abs=0.08)


def test_quarters_that_changed_places_are_found(search: PartSearch, training: Images) -> None:
    image = training[30, 0]
    query = np.block([[image[32:, 32:], image[32:, :32]], [image[:32, 32:], image[:32, :32]]])[None, None]
    assert search.search(query).training[0] == 30


def test_unseen_images_score_below_every_copy_in_part(search: PartSearch, training: Images, unseen: Images) -> None:
    queries = unseen[:20].copy()
    for number, query in enumerate(queries):
        query[:, 32:, 32:] = training[number, :, 32:, 32:] ** 0.7
    copies, null = search.search(queries), search.search(unseen)
    assert (copies.training == np.arange(20)).all()
    assert copies.score.min() > null.score.max()


def test_an_eighth_of_a_volume_is_found() -> None:
    volumes, other = textures(24, (32, 32, 32), 2), textures(2, (32, 32, 32), 3)
    search = PartSearch().fit(Gallery(volumes))
    query = other[:1].copy()
    query[0, :, :16, 16:, :16] = volumes[13, :, 16:, 16:, :16]
    found = search.search(query)
    assert found.training[0] == 13
    np.testing.assert_allclose(found.transforms[0], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]], atol=0.02)
    np.testing.assert_allclose(found.regions[0], [[0, 0.5], [0.5, 1], [0, 0.5]], atol=0.13)
    assert found.score[0] > search.search(other).score.max() + 5


def test_oblong_images_are_looked_up_in_their_own_proportions() -> None:
    images, other = textures(24, (48, 64), 4), textures(1, (48, 64), 5)
    query = other.copy()
    query[0, :, :24, 20:52] = images[3, :, 24:, 30:62]
    found = PartSearch().fit(Gallery(images)).search(query)
    assert found.training[0] == 3
    np.testing.assert_allclose(found.transforms[0, :, 2], [2 * 10 / 64, 2 * 24 / 64], atol=0.02)


def test_images_of_the_patient_are_passed_over(training: Images) -> None:
    patients = np.arange(40) // 2
    search = PartSearch().fit(Gallery(training, patients))
    found, _, _ = search.compare(torch.from_numpy(training[:2]), torch.tensor([0, 0]))
    assert not np.isin(found.numpy(), [0, 1]).any()


def test_a_cohort_of_two_images_can_be_searched(training: Images, unseen: Images) -> None:
    query = unseen[:1].copy()
    query[0, :, :32, :32] = training[1, :, :32, :32]
    found = PartSearch().fit(Gallery(training[:2])).search(query)
    assert found.training[0] == 1
    assert np.isfinite(found.score).all() and found.score[0] > NOT_SCORED


def test_flat_images_are_like_nothing(search: PartSearch) -> None:
    found = search.search(np.full((2, 1, 64, 64), 0.3, dtype=np.float32))
    assert np.isfinite(found.score).all()
    assert found.score.max() < 3


def test_a_look_up_goes_on_where_it_was_interrupted_and_only_with_the_same_images(
    search: PartSearch, unseen: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "parts.npz"
    monkeypatch.setattr("monai_memo.search.parts.SAVE_EVERY", 16)
    whole = search.search(unseen)
    calls = []

    def stopping(images: torch.Tensor, patients: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return PartSearch.compare(search, images, patients)

    monkeypatch.setattr(search, "compare", stopping)
    with pytest.raises(KeyboardInterrupt):
        search.search(unseen, store)
    resumed = search.search(unseen, store)
    assert calls == [16, 14, 14]
    np.testing.assert_allclose(resumed.score, whole.score)
    search.search(unseen[:16] + 0.01, store)
    assert calls == [16, 14, 14, 16]


def test_ranks_find_what_one_process_finds_and_go_on_from_what_each_has_kept(
    search: PartSearch, training: Images, unseen: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = np.concatenate([training[:2], unseen[:5]])
    expected, looked_up = search.search(queries), []
    original = PartSearch._block

    def block(self: PartSearch, images: torch.Tensor) -> PartMatches:
        looked_up.append(len(images))
        return original(self, images)

    monkeypatch.setattr(PartSearch, "_block", block)

    def of_ranks() -> list[PartMatches]:
        words = HashStore()
        words.set_timeout(timedelta(seconds=60))

        def rank(number: int) -> PartMatches:
            team = Team(words, number, 2)
            team._folder = tmp_path / "ranks"
            ours = copy(search)
            ours.runner = Runner(block=2, team=team)
            return ours.search(queries, tmp_path / "kept.npz")

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(rank, range(2)))

    for found in of_ranks():
        for name, values in found.arrays().items():
            np.testing.assert_allclose(values, expected.arrays()[name], rtol=1e-4, atol=1e-5)
    assert sum(looked_up) == len(queries)
    (tmp_path / "kept.4-7.npz").unlink()  # as of a rank that was killed before it had kept anything
    assert of_ranks()[0].training.tolist() == expected.training.tolist()
    assert sum(looked_up) == len(queries) + 3


def test_ranks_share_out_what_windows_are_compared_with(
    training: Images, search: PartSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three ranks, and one more than there are blocks of training images."""
    few, compared = training[:30], []
    monkeypatch.setattr("monai_memo.search.parts.SCALE_IMAGES", 3)
    alone = PartSearch().fit(Gallery(few), Runner(block=2))
    original = PartSearch.compare

    def compare(self: PartSearch, images: torch.Tensor, own: torch.Tensor | None = None) -> object:
        compared.append(len(images))
        return original(self, images, own)

    monkeypatch.setattr(PartSearch, "compare", compare)
    words = HashStore()
    words.set_timeout(timedelta(seconds=60))

    def rank(number: int) -> PartSearch:
        team = Team(words, number, 3)
        team._folder = tmp_path / "ranks"
        return PartSearch().fit(Gallery(few), Runner(block=2, team=team))

    with ThreadPoolExecutor(3) as pool:
        fitted = list(pool.map(rank, range(3)))
    assert sum(compared) == 3
    assert alone.windows is not None
    for one in fitted:
        assert one.windows is not None
        for name, values in vars(alone.windows).items():
            torch.testing.assert_close(getattr(one.windows, name), values, rtol=1e-4, atol=1e-5)


def test_queries_of_another_shape_are_refused(search: PartSearch) -> None:
    with pytest.raises(ValueError, match=r"\(n, 1, 64, 64\).*\(1, 1, 32, 32\)"):
        search.search(np.zeros((1, 1, 32, 32), dtype=np.float32))


def test_windows_that_are_cut_out_and_moved_compose_to_transforms_of_whole_images() -> None:
    crops = Crops((64, 64))
    thetas = torch.tensor([[[0.0, -1.0, 0.1], [1.0, 0.0, -0.2]]])
    centres = torch.tensor([[0.3, -0.25]])
    moved = torch.tensor([[[1.1, 0.05, 0.02], [-0.05, 0.9, -0.04]]])
    point = torch.tensor([0.2, -0.7])  # of the window
    here = centres[0] + crops.zoom * point
    there = moved[0, :, :2] @ point + moved[0, :, 2]
    expected = thetas[0, :, :2] @ (centres[0] + crops.zoom * there) + thetas[0, :, 2]
    whole = crops.composed(thetas, centres, moved)[0]
    torch.testing.assert_close(whole[:, :2] @ here + whole[:, 2], expected)


def test_means_of_windows_stand_in_the_order_of_their_places() -> None:
    maps = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = means_in(maps)[0]
    places = list(places_of((16, 16)))
    assert len(found) == len(places)
    for number in (0, 40, 80, 81, 90, 120, 200):
        (top, left), (height, width) = places[number]
        expected = maps[0, top : top + height, left : left + width].mean() / 1.3
        assert float(found[number]) == pytest.approx(float(expected), rel=1e-5)
