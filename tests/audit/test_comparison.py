# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monai_memo.audit.comparison import Comparison, Found, compare, patient_codes, with_soft_part
from monai_memo.audit.record import kinds_of_agreement
from monai_memo.audit.verified_comparison import compare_verified
from monai_memo.search.matches import Matches
from monai_memo.statistics.rates import thresholds
from monai_memo.statistics.similarities import Similarities, on_common_scale


def test_compare_finds_what_full_matrices_show() -> None:
    rng = np.random.default_rng(0)
    embeddings = {name: rng.normal(size=(n, 16)).astype(np.float32) for name, n in
                  (("training", 40), ("heldout", 30), ("synthetic", 20))}  # fmt: skip
    embeddings["synthetic"][3] = 2 * embeddings["training"][17] + 1
    comparison = compare(embeddings, [f"t{i // 2}" for i in range(40)], [f"h{i}" for i in range(30)])
    full = np.corrcoef(embeddings["training"], np.concatenate([embeddings["heldout"], embeddings["synthetic"]]))
    to_heldout, to_synthetic = full[:40, 40:70], full[:40, 70:]
    sims = comparison.sims
    np.testing.assert_allclose(
        sims.training_to_heldout, -np.sort(-to_heldout, axis=1)[:, : sims.training_to_heldout.shape[1]], atol=1e-6
    )
    np.testing.assert_allclose(sims.heldout_to_training, to_heldout.max(axis=0), atol=1e-6)
    np.testing.assert_allclose(sims.training_to_nearest_synthetic, to_synthetic.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(sims.synthetic_to_training, to_synthetic.max(axis=0), atol=1e-6)
    assert comparison.nearest_training[3] == 17 and sims.synthetic_to_training[3] > 0.9999
    assert len(np.unique(sims.training_patients)) == 20


def test_patient_codes_follow_the_ids() -> None:
    assert patient_codes(["b", "a", "b", "c"]).tolist() == [1, 0, 1, 2]


def test_one_synthetic_image_is_enough() -> None:
    rng = np.random.default_rng(1)
    embeddings = {name: rng.normal(size=(n, 8)) for name, n in (("training", 5), ("heldout", 4), ("synthetic", 1))}
    sims = compare(embeddings, list("abcde"), list("wxyz")).sims
    assert sims.training_to_synthetic.shape == (5, 1)


def test_copies_are_the_same_image_or_share_the_layout_only() -> None:
    sims = Similarities.from_matrices(np.zeros((2, 2)), np.array([[0.95, 0.93, 0.5], [0.1, 0.2, 0.3]]))
    found = Comparison(sims, np.zeros(3, dtype=np.int64), by_places=np.array([0.94, 0.6, 0.5]))
    assert kinds_of_agreement(found, 0.9) == ["places", "layout", None]
    assert kinds_of_agreement(Comparison(sims, np.zeros(3, dtype=np.int64)), 0.9) == [None, None, None]


def test_images_that_are_below_tau_only_since_their_patient_is_near_to_many_are_known() -> None:
    sims = Similarities.from_matrices(np.zeros((2, 3)), np.array([[0.95, 0.8, 0.5], [0.1, 0.2, 0.3]]))
    found = Found(np.array([0, 0, 1]), np.array([0.97, 0.92, 0.6]))
    comparison = Comparison(sims, np.zeros(3, dtype=np.int64), found=found)
    assert comparison.near_many(0.9).tolist() == [False, True, False]
    assert not Comparison(sims, np.zeros(3, dtype=np.int64)).near_many(0.9).any()
    soft = with_soft_part(comparison, np.array([False, True, False]), np.array([0.5, 0.4, 0.3]), 0.95)
    assert soft.found is not None and soft.found.similarity[1] < 0.92 and soft.found.similarity[0] == 0.97


def test_what_the_search_found_is_kept_where_hubs_count_for_less(tmp_path: Path) -> None:
    """Twelve of forty samples are weak copies of one patient: below tau then, and known."""
    rng = np.random.default_rng(0)
    to_training = {"synthetic": rng.normal(0.9, 0.1, (40, 30)), "heldout": rng.normal(1, 0.1, (40, 30))}
    to_training["synthetic"][:12, 7] = np.arctanh(np.quantile(np.tanh(to_training["heldout"]).max(axis=1), 0.95)) + 0.1

    class Search:
        def describe(self) -> dict[str, str]:
            return {}

        def search(self, queries: np.ndarray, _store: Path) -> Matches:
            values = np.tanh(to_training[str(queries[0])])
            found = Matches.empty(len(values), values.shape[1], 2, 1)
            return replace(found, candidates=np.tile(np.arange(30), (40, 1)), similarity=values).in_order()

    prepared: Any = {
        name: SimpleNamespace(
            cohort=SimpleNamespace(patient_ids=[f"{name} {n}" for n in range(30 if name == "training" else 40)]),
            content_sha256=name, pixels=[name],
        )
        for name in ("training", "heldout", "synthetic")
    }  # fmt: skip
    search: Any = Search()
    before, now = (compare_verified(prepared, search, "", tmp_path, hubs) for hubs in (False, True))
    tau = thresholds(now.sims)[0]
    assert (before.sims.synthetic_to_training[:12] > tau).all() and before.found is None
    assert now.near_many(tau).tolist() == [True] * 12 + [False] * 28
    assert now.found is not None and (now.found.image[:12] == 7).all()


def test_soft_images_among_sharp_ones_are_judged_by_references_as_soft() -> None:
    """Soft images are closer to everybody: judged by sharp references, a third of them would be called."""
    rng = np.random.default_rng(0)
    n_train, n_heldout, n_synthetic = 5, 2000, 2000
    sharp, soft = rng.normal(0.5, 0.1, (n_train, n_heldout)), rng.normal(0.6, 0.1, (n_train, n_heldout))
    which = np.arange(n_synthetic) < 600
    synthetic = rng.normal(np.where(which, 0.6, 0.5), 0.1, (n_train, n_synthetic))
    sims = Similarities.from_matrices(np.tanh(sharp), np.tanh(synthetic))
    before = Comparison(sims, synthetic.argmax(axis=0), by_places=np.tanh(synthetic).max(axis=0))
    after = with_soft_part(before, which, np.tanh(soft).max(axis=0), 0.95)
    tau = thresholds(sims)[0]
    assert (before.sims.synthetic_to_training[which] > tau).mean() > 0.15
    assert (after.sims.synthetic_to_training[which] > tau).mean() == pytest.approx(0.05, abs=0.02)
    assert after.p_values is not None and (after.p_values[which] <= 0.05).mean() == pytest.approx(0.05, abs=0.02)
    np.testing.assert_array_equal(after.sims.synthetic_to_training[~which], sims.synthetic_to_training[~which])
    assert (np.diff(after.sims.training_to_synthetic, axis=1) <= 0).all(), "most similar first"
    called = after.sims.training_to_nearest_synthetic
    assert (called <= sims.training_to_nearest_synthetic).all() and (called < sims.training_to_nearest_synthetic).any()


def test_sharp_references_never_raise_a_similarity() -> None:
    values = np.array([0.3, 0.8, -1.0])
    np.testing.assert_allclose(on_common_scale(values, np.linspace(0, 0.5, 50), np.linspace(0, 0.9, 50)), values)
