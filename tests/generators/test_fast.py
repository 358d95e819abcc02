# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_memo.data.phantoms import chest_phantom
from monai_memo.errors import ConfigurationError
from monai_memo.generators.fast import Memorizer, PrincipalComponents, PrincipalDiffusion, PrincipalGaussian

CHESTS = np.stack([chest_phantom(i, (16, 16)) for i in range(12)])


def distance_to_nearest(samples: np.ndarray) -> np.ndarray:
    apart = samples.reshape(len(samples), 1, -1) - CHESTS.reshape(1, len(CHESTS), -1)
    return np.sqrt((apart**2).mean(axis=2)).min(axis=1)


@pytest.mark.parametrize(
    "make", [Memorizer, PrincipalGaussian, lambda pixels: PrincipalDiffusion(pixels, hidden=16).train(20)]
)
def test_equal_seeds_give_equal_images_in_any_batch(make: type) -> None:
    generator = make(CHESTS)
    together, alone = generator.sample([3, 4, 5]), generator.sample([4])
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    assert together.shape == (3, 1, 16, 16) and together.min() >= 0 and together.max() <= 1
    assert not np.allclose(together[0], together[2])
    with pytest.raises(ConfigurationError, match="takes no conditions, got age"):
        generator.sample([1], {"age": [60]})


def test_the_memorizer_draws_training_images_under_noise_and_the_gaussian_none() -> None:
    assert distance_to_nearest(Memorizer(CHESTS, 0.02).sample(range(20))).max() < 0.025
    assert distance_to_nearest(PrincipalGaussian(CHESTS).sample(range(20))).min() > 0.025


def test_principal_components_lose_nothing_that_they_keep() -> None:
    space = PrincipalComponents(CHESTS)
    np.testing.assert_allclose(space.images(space.latents), CHESTS, atol=1e-3)
    np.testing.assert_allclose(space.latents.var(dim=0).numpy(), 1, rtol=1e-3)


def test_the_diffusion_model_learns_to_copy_and_a_halt_changes_nothing() -> None:
    before = distance_to_nearest(PrincipalDiffusion(CHESTS, hidden=64).train(1).sample(range(16))).mean()
    whole = PrincipalDiffusion(CHESTS, hidden=64).train(900)
    halted = PrincipalDiffusion(CHESTS, hidden=64).train(300).train(900)
    for one, other in zip(whole.network.parameters(), halted.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert distance_to_nearest(whole.sample(range(16))).mean() < 0.85 * before
