# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.registration.filters import smooth
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.score_norm import CommonScale, WholeImages

TRAINING = np.stack([chest_phantom(i, (32, 32)) for i in range(40)])
UNSEEN = np.stack([chest_phantom(100 + i, (32, 32)) for i in range(20)])


def redrawn(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """The layout of the images under detail of no patient: what denoising leaves of a copy."""
    rng = np.random.default_rng(seed)
    detail = rng.normal(0, 0.15, images.shape).astype(np.float32)
    tensor = torch.from_numpy(detail)
    return np.clip(smooth(torch.from_numpy(images), 1.5).numpy() + (tensor - smooth(tensor, 1.5)).numpy(), 0, 1)


def whole() -> WholeImages:
    return WholeImages([torch.from_numpy(TRAINING[:30]), torch.from_numpy(TRAINING[30:])], (32, 32), np.arange(40) // 2)


def search(**arguments: bool) -> CopySearch:
    def embed(images: np.ndarray) -> np.ndarray:
        return np.asarray(images).reshape(len(images), -1)

    return CopySearch(TRAINING, EmbeddingIndex(embed(TRAINING)), embed, progress=False, **arguments)


def test_nearest_image_and_its_mirror_image() -> None:
    found = whole()
    for queries in (TRAINING[5:9], TRAINING[5:9, ..., ::-1]):
        vectors = found.vectors(torch.from_numpy(queries.copy()))
        likeness = found.likeness(vectors)
        assert likeness.nearest.tolist() == [5, 6, 7, 8]
        chosen = np.array([[5, 0], [6, 0], [7, -1], [8, 0]])
        values = found.of_candidates(vectors, chosen, likeness.background)
        np.testing.assert_allclose(values[:, 0], likeness.value, rtol=1e-3)
        assert (values[:, 0] > values[:, 1]).all() and values[2, 1] == -np.inf


def test_own_patient_is_passed_over() -> None:
    found = whole()
    likeness = found.likeness(found.training, found.patients)
    assert (found.patients[likeness.nearest] != found.patients).all()
    plain = found.likeness(found.training)
    assert (plain.value > likeness.value).all()


def test_an_image_in_a_crowd_counts_for_less() -> None:
    rng = np.random.default_rng(0)
    crowd = TRAINING[:1] + rng.normal(0, 0.02, (12, 1, 32, 32)).astype(np.float32)  # of twelve patients
    cohort = np.concatenate([crowd, TRAINING[1:20]])
    found = WholeImages([torch.from_numpy(cohort)], (32, 32), np.arange(len(cohort)))
    noisy = cohort[[0, 20]] + rng.normal(0, 0.05, (2, 1, 32, 32)).astype(np.float32)
    likeness = found.likeness(found.vectors(torch.from_numpy(noisy)))
    assert likeness.nearest.tolist() == [0, 20]
    assert likeness.value[1] > likeness.value[0] + 1


def test_an_image_that_stands_twice_is_not_in_a_crowd() -> None:
    vectors = whole().vectors(torch.from_numpy(redrawn(TRAINING[5:6])))
    twice = np.concatenate([TRAINING, TRAINING[5:6]])
    doubled = WholeImages([torch.from_numpy(twice)], (32, 32), np.arange(41))
    single = WholeImages([torch.from_numpy(TRAINING)], (32, 32), np.arange(40))
    assert doubled.likeness(vectors).nearest[0] in (5, 40)
    assert doubled.likeness(vectors).value[0] > single.likeness(vectors).value[0] - 0.1


def test_a_patient_looked_up_among_others_is_nowhere_among_them() -> None:
    found = whole()
    without = np.flatnonzero(found.patients != 3)
    others = WholeImages([torch.from_numpy(TRAINING[without])], (32, 32), found.patients[without])
    own = np.flatnonzero(found.patients == 3)
    among = found.likeness(found.training[own], found.patients[own])
    np.testing.assert_allclose(among.value, others.likeness(found.training[own]).value, rtol=1e-5)
    assert (without[others.likeness(found.training[own]).nearest] == among.nearest).all()


def test_error_is_the_mean_over_pixels() -> None:
    found = whole()
    a, b = found.vectors(torch.zeros(1, 1, 32, 32)), found.vectors(torch.full((1, 1, 32, 32), 0.3))
    assert ((a - b) ** 2).sum() == pytest.approx(0.09, rel=1e-5)


def test_scale_matches_median_and_tail() -> None:
    rng = np.random.default_rng(0)
    similarity, likeness = np.tanh(rng.normal(1, 0.2, 500)), rng.normal(3, 2, 500)
    scale = CommonScale.between(likeness, similarity)
    assert scale is not None
    np.testing.assert_allclose(np.quantile(scale(likeness), [0.5, 0.9]), np.quantile(similarity, [0.5, 0.9]), rtol=1e-2)
    assert scale(np.array([1e9]))[0] < 1 and scale(np.array([-np.inf]))[0] == -1
    assert CommonScale.between(np.ones(30), similarity) is None


def test_redrawn_copies_are_found_by_the_whole_image() -> None:
    copies = redrawn(TRAINING[:15])
    both, local = search(), search(whole=False)
    found, unseen = both(copies, progress=False), both(redrawn(UNSEEN, 1), progress=False)
    assert (found.candidates[:, 0] == np.arange(15)).all()
    without, without_unseen = local(copies, progress=False), local(redrawn(UNSEEN, 1), progress=False)
    recall = (found.similarity[:, 0] > unseen.similarity[:, 0].max()).mean()
    assert recall >= 0.9 > (without.similarity[:, 0] > without_unseen.similarity[:, 0].max()).mean()
    assert (found.similarity >= found.whole).all() and (np.diff(found.similarity, axis=1) <= 0).all()
    assert (without.whole == -1).all()


def test_small_cohorts_do_without() -> None:
    flat = TRAINING[:12].reshape(12, -1)
    small = CopySearch(TRAINING[:12], EmbeddingIndex(flat), lambda x: x.reshape(len(x), -1), progress=False)
    assert small.scale is None
    assert (small(UNSEEN[:3], progress=False).whole == -1).all()
