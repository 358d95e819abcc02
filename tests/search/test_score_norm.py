# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.registration.filters import smooth
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_retriever import EmbeddingRetriever
from monai_memo.search.gallery import Gallery
from monai_memo.search.reranker import ScoredBlock
from monai_memo.search.runner import Runner
from monai_memo.search.score_norm import EVEN_CONTRAST, CommonScale, WholeImages, evened, leads, vote_leads
from monai_memo.search.shape_retriever import ShapeRetriever

TRAINING = np.stack([chest_phantom(i, (32, 32)) for i in range(40)])
UNSEEN = np.stack([chest_phantom(100 + i, (32, 32)) for i in range(20)])


def redrawn(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """The layout of the images under detail of no patient: what denoising leaves of a copy."""
    rng = np.random.default_rng(seed)
    detail = rng.normal(0, 0.15, images.shape).astype(np.float32)
    tensor = torch.from_numpy(detail)
    return np.clip(smooth(torch.from_numpy(images), 1.5).numpy() + (tensor - smooth(tensor, 1.5)).numpy(), 0, 1)


def whole(pixels: np.ndarray = TRAINING, patients: np.ndarray | None = None) -> WholeImages:
    found = WholeImages()
    found.fit(Gallery(pixels, np.arange(len(pixels)) // 2 if patients is None else patients), Runner())
    return found


def vectors_of(found: WholeImages, images: np.ndarray) -> torch.Tensor:
    return found.vectors_of(torch.from_numpy(np.ascontiguousarray(images)))


def search(pixels: np.ndarray = TRAINING, whole_images: bool = True) -> CopySearch:
    encoder = EmbeddingRetriever(lambda images: images.flatten(1))
    return CopySearch([encoder, ShapeRetriever()], whole_images=whole_images).fit(Gallery(pixels))


def test_nearest_image_and_its_mirror_image() -> None:
    found = whole()
    for queries in (TRAINING[5:9], TRAINING[5:9, ..., ::-1]):
        vectors = vectors_of(found, queries)
        closest = found.closeness(vectors)
        assert closest.nearest.tolist() == [5, 6, 7, 8]
        chosen = torch.tensor([[5, 0], [6, 0], [7, -1], [8, 0]])
        values = found.of_candidates(vectors, chosen, closest.background)
        np.testing.assert_allclose(values[:, 0], closest.value, rtol=1e-3)
        assert (values[:, 0] > values[:, 1]).all() and values[2, 1] == -np.inf


def test_own_patient_is_passed_over() -> None:
    found = whole()
    closest = found.closeness(found.vectors, found.patients)
    assert bool((found.patients[closest.nearest] != found.patients).all())
    plain = found.closeness(found.vectors)
    assert bool((plain.value > closest.value).all())


def test_an_image_in_a_crowd_counts_for_less() -> None:
    rng = np.random.default_rng(0)
    crowd = TRAINING[:1] + rng.normal(0, 0.02, (12, 1, 32, 32)).astype(np.float32)  # of twelve patients
    cohort = np.concatenate([crowd, TRAINING[1:20]])
    found = whole(cohort, np.arange(len(cohort)))
    noisy = cohort[[0, 20]] + rng.normal(0, 0.05, (2, 1, 32, 32)).astype(np.float32)
    closest = found.closeness(vectors_of(found, noisy))
    assert closest.nearest.tolist() == [0, 20]
    assert closest.value[1] > closest.value[0] + 1


def test_an_image_that_stands_twice_is_not_in_a_crowd() -> None:
    vectors = vectors_of(whole(), redrawn(TRAINING[5:6], 1))
    twice = np.concatenate([TRAINING, TRAINING[5:6]])
    doubled = whole(twice, np.arange(41))
    single = whole(TRAINING, np.arange(40))
    assert doubled.closeness(vectors).nearest[0] in (5, 40)
    assert doubled.closeness(vectors).value[0] > single.closeness(vectors).value[0] - 0.1


def test_a_patient_looked_up_among_others_is_nowhere_among_them() -> None:
    found = whole()
    patients = found.patients.numpy()
    without, own = np.flatnonzero(patients != 3), torch.from_numpy(np.flatnonzero(patients == 3))
    others = whole(TRAINING[without], patients[without])
    among, apart = found.closeness(found.vectors[own], found.patients[own]), others.closeness(found.vectors[own])
    np.testing.assert_allclose(among.value, apart.value, rtol=1e-4)
    assert (without[apart.nearest] == among.nearest.numpy()).all()


def test_large_galleries_are_looked_through_by_small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, queries = whole(), np.concatenate([redrawn(TRAINING[:10]), UNSEEN[:10]])
    wanted = exact.closeness(vectors_of(exact, queries))
    monkeypatch.setattr("monai_memo.search.score_norm.EXACT_UP_TO", 10)
    coarse = whole()
    found = coarse.closeness(vectors_of(coarse, queries))
    assert exact.vectors.shape == coarse.vectors.shape and not coarse.exact and len(coarse.columns) == 256
    assert found.nearest[:10].tolist() == list(range(10)) == wanted.nearest[:10].tolist()
    np.testing.assert_allclose(found.value, wanted.value, atol=0.02)


def test_error_is_the_mean_over_pixels() -> None:
    found = whole()
    a, b = (found.vectors_of(torch.full((1, 1, 32, 32), grey)) for grey in (0.0, 0.3))
    assert float(((a - b) ** 2).sum()) == pytest.approx(0.09, rel=1e-5)


def test_faint_detail_counts_as_much_as_strong_one_and_brightness_stays() -> None:
    detail = np.random.default_rng(0).normal(0, 1, (1, 1, 32, 64)).astype(np.float32)
    faint, strong = slice(0, 24), slice(40, 64)
    detail[..., :32] *= 0.02
    detail[..., 32:] *= 0.2
    bright = np.linspace(0.2, 0.8, 64, dtype=np.float32)
    even = evened(torch.from_numpy(bright + detail)).numpy() - bright
    for part in (faint, strong):
        assert 0.3 * EVEN_CONTRAST < even[..., part].std() < 1.1 * EVEN_CONTRAST
        assert abs(even[..., part].mean()) < 0.02
    assert detail[..., strong].std() > 9 * detail[..., faint].std()


def test_scale_matches_median_and_tail() -> None:
    rng = np.random.default_rng(0)
    similarity, closeness = np.tanh(rng.normal(1, 0.2, 500)), rng.normal(3, 2, 500)
    scale = CommonScale.between(closeness, similarity)
    assert scale is not None
    np.testing.assert_allclose(
        np.quantile(scale(closeness), [0.5, 0.9]), np.quantile(similarity, [0.5, 0.9]), rtol=1e-2
    )
    assert scale(np.array([1e9]))[0] < 1 and scale(np.array([-np.inf]))[0] == -1
    assert CommonScale.between(np.ones(30), similarity) is None


def test_redrawn_copies_are_found_by_the_whole_image() -> None:
    copies = redrawn(TRAINING[:15])
    both, local = search(), search(whole_images=False)
    found, unseen = both.search(copies), both.search(redrawn(UNSEEN, 1))
    assert (found.candidates[:, 0] == np.arange(15)).all()
    without, without_unseen = local.search(copies), local.search(redrawn(UNSEEN, 1))
    recall = (found.similarity[:, 0] > unseen.similarity[:, 0].max()).mean()
    assert recall >= 0.9 > (without.similarity[:, 0] > without_unseen.similarity[:, 0].max()).mean()
    assert (found.similarity >= found.whole_image).all() and (np.diff(found.similarity, axis=1) <= 0).all()
    assert (without.whole_image == -1).all()


def test_small_cohorts_do_without() -> None:
    small = search(TRAINING[:12])
    assert small.scale is None
    assert (small.search(UNSEEN[:3]).whole_image == -1).all()


def block(agreement: list[list[float]], thetas: torch.Tensor | None = None) -> ScoredBlock:
    """Candidates 0, 1, ... with this agreement in both of two bands."""
    values = torch.tensor(agreement)
    n, r = values.shape
    thetas = torch.eye(2, 3).expand(n, r, 2, 3) if thetas is None else thetas
    return ScoredBlock(torch.arange(r).expand(n, r), values, thetas, values[:, :, None].expand(n, r, 2))


def test_who_is_ahead_of_the_others_leads_however_little_all_agree() -> None:
    clear, even, noisy = leads(
        block([[0.9, 0.6, 0.6, 0.6, 0.6], [0.62, 0.6, 0.6, 0.6, 0.6], [0.4, 0.2, 0.2, 0.2, 0.2]]), torch.arange(5)
    )[:, :, 0]
    assert clear[0] > 4 * even[0] > 0 and noisy[0] > 4 * even[0]
    assert bool((clear[1:] <= 0).all())


def test_two_originals_of_a_mixture_do_not_hide_one_another() -> None:
    found = leads(block([[0.8, 0.79, 0.5, 0.5, 0.5]]), torch.arange(5))[0]
    assert bool((found[:2] > 0.5).all()) and bool((found[2:] <= 0).all())


def test_images_of_one_patient_are_not_compared_with_each_other() -> None:
    found = leads(block([[0.8, 0.8, 0.5, 0.5, 0.5]]), torch.tensor([0, 0, 1, 2, 3]))[0, :, 0]
    assert bool((found[:2] > 0.5).all())
    few = leads(block([[0.8, 0.5, 0.5]]), torch.tensor([0, 1, 1]))
    assert bool(few.isinf().all())


def test_nobody_leads_where_the_others_were_not_tried() -> None:
    turned = torch.eye(2, 3).repeat(1, 5, 1, 1)
    turned[0, 0, :, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    found = leads(block([[0.9, 0.6, 0.6, 0.6, 0.6]], turned), torch.arange(5))[0, :, 0]
    assert found[0] == -torch.inf and bool(found[1:].isfinite().all())


def test_keypoints_lead_by_their_ratio_to_other_patients() -> None:
    votes, found = torch.tensor([[36.0, 6.0, 6.0, 6.0, 0.0]]), torch.tensor([[3, 1, 2, 0, -1]])
    lead = vote_leads(votes, found, torch.tensor([[3, 1, 7, -1]]), torch.arange(8))[0]
    assert lead[0] == pytest.approx(np.log(40 / 10)) and lead[1] == pytest.approx(0, abs=1e-6)
    assert lead[2] == -torch.inf and lead[3] == -torch.inf
