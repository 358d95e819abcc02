# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from monai_memo.data.phantoms import chest_phantom, knee_phantom
from monai_memo.data.planting import KINDS, MIXTURE, plant, plant_mixture
from monai_memo.errors import ConfigurationError

CHEST = np.stack([chest_phantom(i, (64, 64)) for i in range(4)])
KNEE = np.stack([knee_phantom(i, (16, 16, 16)) for i in range(3)])


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("images", [CHEST, KNEE], ids=["2D", "3D"])
def test_every_kind_changes_the_image_and_keeps_its_form(kind: str, images: np.ndarray) -> None:
    before = images.copy()
    copies = plant(images, kind, seed=0)
    assert copies.shape == images.shape and copies.dtype == np.float32
    assert copies.min() >= 0 and copies.max() <= 1
    assert (np.abs(copies - images).mean(axis=tuple(range(1, images.ndim))) > 1e-4).all()
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(copies, plant(images, kind, seed=0))
    if kind != "flip":
        assert not np.array_equal(copies, plant(images, kind, seed=1))


def test_flip_is_left_right() -> None:
    np.testing.assert_array_equal(plant(CHEST, "flip", 0), CHEST[..., ::-1])
    np.testing.assert_array_equal(plant(KNEE, "flip", 0), KNEE[:, :, ::-1])


def test_regions_have_the_stated_size() -> None:
    ones = np.ones((40, 1, 64, 64), dtype=np.float32)
    erased = (plant(ones, "erasing", 0) == 0).mean(axis=(1, 2, 3))
    assert erased.min() > 0.09 and erased.max() < 0.27
    mixed = np.concatenate([ones[:20], 0 * ones[:20]])
    replaced = (plant(mixed, "replacement", 0) != mixed).mean(axis=(1, 2, 3))
    assert replaced.max() < 0.27


def test_mixture_takes_turns() -> None:
    images = np.repeat(CHEST, len(MIXTURE), axis=0)
    copies, kinds = plant_mixture(images, seed=3)
    assert {kinds.count(kind) for kind in MIXTURE} == {4}
    assert copies.shape == images.shape
    assert plant_mixture(images, seed=3)[1] == kinds != plant_mixture(images, seed=4)[1]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigurationError, match="kind must be one of flip, rotation"):
        plant(CHEST, "twist", 0)
    with pytest.raises(ConfigurationError, match="images must have shape"):
        plant(CHEST[0], "flip", 0)
    with pytest.raises(ConfigurationError, match="at least two images"):
        plant(CHEST[:1], "replacement", 0)
