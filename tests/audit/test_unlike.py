# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Noise and images of another kind are told; what resembles training images, and copies that were called, are not."""

from __future__ import annotations

import numpy as np
import pytest

from monai_memo.audit.unlike import unlike_training
from monai_memo.data.phantoms import chest_phantom, knee_phantom
from tests.audit.test_repeats import images

NONE = np.zeros(40, dtype=bool)


def chests(first: int, count: int) -> np.ndarray:
    return np.stack([chest_phantom(first + i, (32, 32)) for i in range(count)])


@pytest.mark.parametrize("dims", [2, 3])
def test_noise_is_told_and_images_of_new_patients_are_not(dims: int) -> None:
    training, heldout, samples = (images(40, seed, dims) for seed in range(3))
    noise = np.random.default_rng(3).random(samples.shape).astype(np.float32)
    (said,) = unlike_training(noise, training, heldout, NONE)
    assert said.startswith("40 of 40 synthetic images do not resemble the training images")
    assert unlike_training(samples, training, heldout, NONE) == []


def test_a_few_are_none_and_neither_are_copies_that_were_called() -> None:
    training, heldout = chests(0, 40), chests(100, 40)
    mixed = chests(200, 40)
    mixed[:10] = np.rot90(training[:10], axes=(2, 3))
    (said,) = unlike_training(mixed, training, heldout, NONE)
    assert said.startswith("10 of 40 ")
    assert unlike_training(mixed, training, heldout, np.arange(40) < 10) == []
    mixed[2:10] = chests(300, 8)
    assert unlike_training(mixed, training, heldout, NONE) == []


def test_blur_strong_noise_and_mixtures_of_patients_resemble_them() -> None:
    training, heldout = chests(0, 40), chests(100, 40)
    new = chests(200, 40)
    for samples in (
        (new + chests(300, 40)) / 2,
        np.clip(new + 0.2 * np.random.default_rng(0).standard_normal(new.shape), 0, 1),
        np.repeat(new.mean(axis=0, keepdims=True), 40, axis=0),
        np.where(np.arange(32) < 16, new, chests(400, 40)),
    ):
        assert unlike_training(samples, training, heldout, NONE) == []


def test_where_real_images_have_nothing_in_common_nothing_is_said() -> None:
    rng = np.random.default_rng(0)
    training, heldout = rng.random((40, 1, 32, 32)), rng.random((40, 1, 32, 32))
    assert unlike_training(chests(0, 40), training, heldout, NONE) == []


def test_another_part_of_the_body_is_told() -> None:
    training, heldout = ([knee_phantom(first + i, (16, 16, 16)) for i in range(20)] for first in (0, 100))
    others = np.stack([np.repeat(chest_phantom(i, (16, 16))[:, None], 16, axis=1) for i in range(40)])
    assert unlike_training(others, np.stack(training), np.stack(heldout), NONE)
