# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Numbers that readers know: right in cases whose value is known."""

from __future__ import annotations

import numpy as np
import pytest

from monai_memo.statistics.standard import (
    IF_COPIED,
    Embeddings,
    authenticity,
    distance_ratio,
    frechet_distance,
    mifid,
    nearer_to_training,
    precision_and_coverage,
    standard_numbers,
    three_sample_c_t,
    vendi_score,
)

RNG = np.random.default_rng(0)


def draws(n: int, dim: int = 8) -> np.ndarray:
    values = RNG.normal(size=(n, dim))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


TRAINING, UNSEEN, NOVEL = draws(200), draws(200), draws(200)
NEAR = TRAINING + 1e-4 * RNG.normal(size=TRAINING.shape)


def test_novel_samples_have_the_values_of_chance() -> None:
    assert abs(three_sample_c_t(TRAINING, UNSEEN, NOVEL)) < 3
    assert nearer_to_training(TRAINING, UNSEEN, NOVEL) == pytest.approx(0.5, abs=0.1)
    assert authenticity(TRAINING, NOVEL) == pytest.approx(0.5, abs=0.12)
    assert frechet_distance(TRAINING, NOVEL) < 0.1
    assert precision_and_coverage(TRAINING, NOVEL)[0] > 0.9


def test_copies_have_the_values_of_copies() -> None:
    assert three_sample_c_t(TRAINING, UNSEEN, NEAR) < -15
    assert nearer_to_training(TRAINING, UNSEEN, NEAR) == 1.0
    assert distance_ratio(TRAINING, NEAR) < 0.01 < 0.5 < distance_ratio(TRAINING, NOVEL)
    assert authenticity(TRAINING, NEAR) == 0.0
    assert mifid(TRAINING, NEAR) > frechet_distance(TRAINING, NEAR)
    assert precision_and_coverage(TRAINING, NEAR)[0] == 1.0, "quality does not tell copies"


def test_a_few_copies_are_missed_by_means_over_the_set() -> None:
    mixed = np.concatenate([NEAR[:2], NOVEL[2:]])
    assert abs(three_sample_c_t(TRAINING, UNSEEN, mixed)) < 3
    assert nearer_to_training(TRAINING, UNSEEN, mixed) == pytest.approx(0.5, abs=0.1)


def test_distances_between_gaussians_and_numbers_of_images_are_exact() -> None:
    first = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    # Covariances are (2 / 3) I and 4 times that: the means differ by 3, the spreads by (2 - 1)^2 (2 / 3) 2.
    assert frechet_distance(first, 2 * first + np.array([3.0, 0.0])) == pytest.approx(9 + 4 / 3)
    assert vendi_score(np.eye(6)) == pytest.approx(6) and vendi_score(np.eye(6)[[0] * 9]) == pytest.approx(1)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]) / 2
    centred = square - square.mean(axis=0)
    assert precision_and_coverage(centred, centred, k=1)[0] == 1.0


def test_cohorts_are_matched_in_size_and_small_ones_have_none() -> None:
    found = Embeddings.of(draws(50), draws(20), draws(30))
    assert (len(found.training), len(found.unseen), len(found.synthetic)) == (20, 20, 30)
    assert standard_numbers(Embeddings.of(draws(50), draws(2), draws(30))) == []
    names = [number.name for number in standard_numbers(found)]
    assert names == [
        "C_T", "DCR share", "NNDR", "authenticity", "MiFID", "precision", "recall", "density", "coverage",
        "Vendi score",
    ]  # fmt: skip
    assert all(number.misses and number.says for number in standard_numbers(found))


def test_copies_move_each_number_the_way_that_the_report_says() -> None:
    rng = np.random.default_rng(1)
    real, unseen = rng.normal(size=(80, 16)), rng.normal(size=(80, 16))
    copies = real + 0.05 * rng.normal(size=real.shape)
    numbers = standard_numbers(Embeddings.of(real, unseen, copies))
    assert {one.name for one in numbers} == set(IF_COPIED)
    for one in numbers:
        assert one.expected is not None
        if IF_COPIED[one.name].endswith("quality"):  # shares that can be full for unseen images already
            assert one.value >= one.expected, one
        elif IF_COPIED[one.name] != "either way":
            assert (one.value > one.expected) == (IF_COPIED[one.name] == "higher"), one
