# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Every image looked up under all symmetries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_memo.audit.comparison import compare
from monai_memo.audit.evidence import collect_evidence
from monai_memo.audit.result import Match
from monai_memo.audit.symmetries import TurnedSearch, ViewsIndex, turned
from monai_memo.data.cohort import Cohort
from monai_memo.data.loading import Preprocessing
from monai_memo.data.orientation import left_right, mirrors, searched, symmetries
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.writing import save_image
from monai_memo.search.copy_search import CopySearch
from monai_memo.search.embedding_index import EmbeddingIndex
from monai_memo.search.embedding_retriever import ArrayEncoder
from monai_memo.search.gallery import Gallery


def as_vectors(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, dtype=np.float32).reshape(len(images), -1)


def search_among(pixels: np.ndarray) -> CopySearch:
    return CopySearch.default(ArrayEncoder(as_vectors)).fit(Gallery(pixels))


def test_a_copy_turned_in_any_way_is_found_with_all() -> None:
    training = np.stack([chest_phantom(i, (32, 32)) for i in range(30)])
    queries = np.concatenate([one.inverse()(training[10:11]) for one in symmetries(2)])
    plain, every = search_among(training), search_among(training)
    alone = plain.search(queries)
    found = TurnedSearch(every, symmetries(2)).search(queries)
    assert (found.candidates[:, 0] == 10).all() and (found.similarity[:, 0] > 0.98).all()
    seen_anyway = np.array([one.is_identity or one == left_right(2) for one in symmetries(2)])
    assert (alone.similarity[:, 0] > 0.98)[seen_anyway].all()  # keypoints find most of the others as well
    mirrored = TurnedSearch(every, mirrors(2)).search(queries)
    flips = np.array([one in mirrors(2) for one in symmetries(2)])
    assert (mirrored.similarity[:, 0] > 0.98)[flips].all()
    # A training image stands once among the candidates, and places without one come last.
    for row in found.candidates:
        assert len(set(row[row >= 0])) == (row >= 0).sum() and (np.diff(row < 0) >= 0).all()
    assert (np.diff(found.similarity, axis=1) <= 0).all()


def test_volumes_are_looked_up_along_exchanged_axes() -> None:
    training = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(6)])
    axes = [one for one in searched("all", 3) if one.axes == (2, 0, 1)][:1]
    query = axes[0].inverse()(training[3:4])
    found = TurnedSearch(search_among(training), [symmetries(3)[0], *axes]).search(query)
    assert found.candidates[0, 0] == 3 and found.similarity[0, 0] > 0.98


def test_oblong_images_keep_their_size_when_turned() -> None:
    images = np.stack([chest_phantom(i, (48, 32)) for i in range(2)])
    for one in symmetries(2):
        assert turned(images, one).shape == images.shape
    there = turned(images, symmetries(2)[4])
    assert np.corrcoef(turned(there, symmetries(2)[4].inverse()).ravel(), images.ravel())[0, 1] > 0.98


def test_views_count_as_one_image_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    training, heldout = rng.normal(size=(12, 8)).astype(np.float32), rng.normal(size=(3, 20, 8)).astype(np.float32)
    synthetic = rng.normal(size=(3, 5, 8)).astype(np.float32)
    synthetic[2, 4] = training[7]
    sims = compare({"training": training, "heldout": heldout, "synthetic": synthetic}, list("abcdefghijkl"), ["t"] * 20)
    assert sims.nearest_training[4] == 7 and sims.sims.synthetic_to_training[4] == pytest.approx(1)
    pairs = np.stack([EmbeddingIndex(view).search(training, 5)[0].max(axis=1) for view in synthetic]).max(axis=0)
    np.testing.assert_allclose(sims.sims.training_to_nearest_synthetic, pairs, atol=1e-6)
    similarity, places = ViewsIndex(heldout).search(training, 20)
    assert all(sorted(row) == list(range(20)) for row in places) and (np.diff(similarity, axis=1) <= 0).all()


def test_pairs_are_shown_turned_as_they_were_found(tmp_path: Path) -> None:
    image = chest_phantom(3, (48, 48))
    save_image(tmp_path / "training" / "t.png", image)
    save_image(tmp_path / "synthetic" / "s.png", np.ascontiguousarray(image.swapaxes(1, 2)))
    pair = [Cohort.from_source(tmp_path / name, name) for name in ("synthetic", "training")]
    match = Match("s.png", "t.png", "t.png", 0.9, 0.7, True)
    shown = collect_evidence([match], *pair, Preprocessing(2, (32, 32)), symmetries=symmetries(2)[1:])[0]
    assert shown.turned == "when transposed (rows and columns exchanged)"
    assert shown.correlation > 0.99 and shown.mirrored == ""
    plain = collect_evidence([match], *pair, Preprocessing(2, (32, 32)))[0]
    assert plain.turned == "" and plain.correlation < 0.9
