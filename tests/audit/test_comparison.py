# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from monai_memo.audit.comparison import compare, patient_codes


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
