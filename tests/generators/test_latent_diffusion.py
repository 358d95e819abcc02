# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from monai.networks.schedulers import DDIMScheduler

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.latent_diffusion import LatentDiffusion, sample_seeds
from tests.generators.conftest import tiny_autoencoder, tiny_diffusion, tiny_model


@pytest.mark.parametrize("dims", [2, 3])
def test_samples_depend_on_their_seeds_alone(dims: int) -> None:
    seeds = sample_seeds(0, range(5))
    whole = tiny_model(dims, batch_size=5).sample(seeds)
    assert whole.shape == (5, 1, *(16,) * dims)
    assert whole.dtype == np.float32
    assert 0 <= whole.min() < whole.max() <= 1
    np.testing.assert_allclose(tiny_model(dims, batch_size=2).sample(seeds), whole, atol=1e-5)
    np.testing.assert_allclose(tiny_model(dims).sample(seeds[3:4])[0], whole[3], atol=1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_series_share_no_seeds() -> None:
    assert sample_seeds(0, range(50)) == sample_seeds(0, range(50))
    assert not set(sample_seeds(0, range(50))) & set(sample_seeds(1, range(50)))


def test_sampling_leaves_training_as_it_was(model: LatentDiffusion) -> None:
    model.diffusion.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model.sample([1])
    assert torch.equal(torch.rand(3), expected)
    assert model.diffusion.training and not model.autoencoder.eval().training


def test_round_trip_decodes_the_mean(model: LatentDiffusion) -> None:
    images = np.random.default_rng(0).random((5, 1, 16, 16), dtype=np.float32)
    with torch.no_grad():
        expected = model.autoencoder.eval().reconstruct(torch.from_numpy(images)).clamp(0, 1).numpy()
    np.testing.assert_allclose(model.round_trip(images), expected, atol=1e-5)


def test_denoising_moves_away_from_the_image_with_strength(model: LatentDiffusion) -> None:
    images = np.random.default_rng(0).random((6, 1, 16, 16), dtype=np.float32)
    plain = model.round_trip(images)
    np.testing.assert_array_equal(model.denoise_from(images, 0.0), plain)
    distances = [np.abs(model.denoise_from(images, strength, seed=1) - plain).mean() for strength in (0.3, 1.0)]
    assert 0 < distances[0] < distances[1]
    np.testing.assert_array_equal(model.denoise_from(images, 0.5, 1), model.denoise_from(images, 0.5, 1))
    assert np.abs(model.denoise_from(images, 0.5, 1) - model.denoise_from(images, 0.5, 2)).max() > 1e-4
    with pytest.raises(ConfigurationError, match=r"strength must lie between 0 and 1, got 1\.5"):
        model.denoise_from(images, 1.5)


def test_networks_that_do_not_fit_are_refused(model: LatentDiffusion) -> None:
    scheduler = DDIMScheduler(20)
    with pytest.raises(GeneratorError, match="takes 3 channels, the autoencoder's latents have 2"):
        LatentDiffusion(tiny_autoencoder(), tiny_diffusion(channels=3), scheduler, 1.0, [2, 8, 8], 4)
    with pytest.raises(GeneratorError, match="has 2 latent channels"):
        LatentDiffusion(tiny_autoencoder(), tiny_diffusion(channels=3), scheduler, 1.0, [3, 8, 8], 4)
    with pytest.raises(GeneratorError, match="cannot be halved"):
        LatentDiffusion(tiny_autoencoder(), tiny_diffusion(), scheduler, 1.0, [2, 7, 8], 4)
    steps = copy.deepcopy(model.scheduler.timesteps)
    model.denoise_from(np.zeros((1, 1, 16, 16), np.float32) + 0.5, 0.5)
    assert torch.equal(model.scheduler.timesteps, steps)


def test_denoised_copies_do_not_depend_on_the_batch_size() -> None:
    images = np.random.default_rng(0).random((5, 1, 16, 16), dtype=np.float32)
    found = [tiny_model(batch_size=n).denoise_from(images, 0.6, seed=2) for n in (5, 2)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_full_strength_begins_at_the_last_timestep_and_forgets_the_image(model: LatentDiffusion) -> None:
    images = np.random.default_rng(0).random((2, 1, 16, 16), dtype=np.float32)
    first, second = (model.denoise_from(images[i : i + 1], 1.0, seed=1) for i in (0, 1))
    nearer = [model.denoise_from(images[i : i + 1], 0.2, seed=1) for i in (0, 1)]
    assert np.abs(first - second).mean() < np.abs(nearer[0] - nearer[1]).mean()
