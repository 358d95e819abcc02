# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The small latent diffusion model behind the benchmark's copies that went through a generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from monai_memo.data.phantoms import chest_phantom
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.small import train_small_generator

CHEST = np.stack([chest_phantom(i, (32, 32)) for i in range(10)])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> LatentDiffusion:
    return train_small_generator(CHEST, tmp_path_factory.mktemp("small"), 4, 4, seed=0, progress=False)


def test_a_training_that_was_finished_is_not_done_again_and_another_one_is(tmp_path: Path) -> None:
    whole = train_small_generator(CHEST, tmp_path, 4, 4, seed=0, progress=False)
    written = (tmp_path / "diffusion.pt").read_bytes()
    again = train_small_generator(CHEST, tmp_path, 4, 4, seed=0, progress=False)
    assert (tmp_path / "diffusion.pt").read_bytes() == written
    np.testing.assert_array_equal(whole.round_trip(CHEST[:2]), again.round_trip(CHEST[:2]))
    np.testing.assert_array_equal(whole.sample([1, 2]), again.sample([1, 2]))
    for images, seed in ((CHEST[:8], 0), (CHEST, 7)):
        other = train_small_generator(images, tmp_path, 4, 4, seed=seed, progress=False)
        assert not np.array_equal(whole.round_trip(CHEST[:2]), other.round_trip(CHEST[:2]))


def test_latents_have_unit_variance_and_a_quarter_of_the_length(small: LatentDiffusion) -> None:
    with torch.no_grad():
        latents = small.autoencoder.encode(torch.from_numpy(CHEST))[0] * small.scale_factor
    assert latents.shape[1:] == small.latent_shape == (4, 8, 8)
    assert float(latents.std()) == pytest.approx(1, abs=1e-4)


def by_hand(model: LatentDiffusion, images: NDArray[np.float32], strength: float, seed: int) -> NDArray[np.float32]:
    """The near copies of the published benchmark: one stream of noise, batches of 8, DDIM."""
    draws, results = torch.Generator().manual_seed(seed), []
    start = int(strength * 1000)
    with torch.no_grad():
        for batch in torch.from_numpy(images).split(8):
            latent = model.autoencoder.encode(batch)[0] * model.scale_factor
            noise = torch.randn(latent.shape, generator=draws)
            latent = model.scheduler.add_noise(latent, noise, torch.full((len(batch),), start))
            for step in model.scheduler.timesteps[model.scheduler.timesteps <= start]:
                predicted = model.diffusion(latent, timesteps=torch.full((len(batch),), int(step)))
                latent, _ = model.scheduler.step(predicted, int(step), latent)
            results.append(model.autoencoder.decode(latent / model.scale_factor))
    return torch.cat(results).clamp(0, 1).numpy()


@pytest.mark.parametrize("strength", [0.1, 0.2, 0.3, 0.5])
def test_denoised_copies_are_those_that_the_benchmark_has_always_made(small: LatentDiffusion, strength: float) -> None:
    found = small.denoise_from(CHEST, strength, seed=3)
    np.testing.assert_allclose(found, by_hand(small, CHEST, strength, 3), atol=1e-4)
    assert np.abs(found - small.denoise_from(CHEST, strength, seed=4)).max() > 1e-3
