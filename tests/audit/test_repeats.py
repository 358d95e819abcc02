# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_memo.audit.repeats import nearly_repeated, repeated_samples


def images(count: int, seed: int, dims: int = 2) -> np.ndarray:
    """Different images that have much in common, as patients have."""
    length = 48 if dims == 2 else 16
    rng, shape = np.random.default_rng(seed), (length,) * dims
    common = gaussian_filter(np.random.default_rng(99).standard_normal(shape), 3)
    own = np.stack([gaussian_filter(rng.standard_normal(shape), 2) for _ in range(count)])
    return np.clip(0.5 + 0.15 * common / common.std() + 0.1 * own / own.std(), 0, 1).astype(np.float32)[:, None]


HELDOUT, WHOSE = images(40, 0), np.arange(40)


@pytest.mark.parametrize(("dims", "noise"), [(2, 0.01), (2, 0.05), (3, 0.01)])
def test_a_generator_that_collapsed_gives_few_images_however_many_samples(dims: int, noise: float) -> None:
    modes = images(3, 1, dims)[np.arange(60) % 3]
    samples = (modes + noise * np.random.default_rng(2).standard_normal(modes.shape)).clip(0, 1).astype(np.float32)
    (said,), concerns = repeated_samples(samples, images(40, 0, dims), WHOSE)
    assert said.startswith("57 of 60 synthetic images are nearly the same as another one")
    assert "they amount to 3 different ones" in said and concerns == [said]


def test_different_images_are_none_and_a_few_nearly_equal_ones_decide_nothing() -> None:
    samples = images(60, 1)
    assert repeated_samples(samples, HELDOUT, WHOSE) == ([], [])
    samples[:2] = samples[2:4] * 0.99
    assert nearly_repeated(samples, HELDOUT, WHOSE) == (60, 2)
    assert repeated_samples(samples, HELDOUT, WHOSE) == ([], [])


def test_images_of_one_patient_do_not_say_how_alike_two_patients_are() -> None:
    twice = np.concatenate([HELDOUT, HELDOUT * 0.99])
    samples = images(30, 1)[np.arange(60) % 30] * np.linspace(0.9, 1, 60, dtype=np.float32)[:, None, None, None]
    assert nearly_repeated(samples, twice, np.tile(WHOSE, 2)) == (60, 30)
    assert nearly_repeated(samples, HELDOUT[:2], np.zeros(2, int)) == (60, 0)  # one patient tells nothing


def test_equal_images_are_told_as_such() -> None:
    samples = images(60, 1)[np.arange(60) % 3]
    (said,), concerns = repeated_samples(samples, HELDOUT, WHOSE)
    assert "57 of 60 synthetic images repeat another one to the last pixel" in said and concerns == [said]
