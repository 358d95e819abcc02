# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Samplers and first stages by name: each trains and samples what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.schedulers import RFlowScheduler

from monai_memo.errors import ConfigurationError, GeneratorError
from monai_memo.generators.ambient import AmbientBatch
from monai_memo.generators.autoencoder_losses import AutoencoderObjective
from monai_memo.generators.batches import LatentBatch
from monai_memo.generators.bundle_model import assemble
from monai_memo.generators.clean_latent import CorrectedDiffusion
from monai_memo.generators.first_stage import PixelSpace, chosen, reconstruction, trainable, vector_quantized
from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.latents import encode_latents, latent_shape
from monai_memo.generators.schedulers import SCHEDULERS, process_of, sampling_scheduler, training_scheduler
from monai_memo.generators.weights import save_weights
from tests.generators.conftest import tiny_autoencoder, tiny_diffusion

BETAS = (0.0015, 0.0205)


def scheduler(name: str, steps: int = 20, prediction: str = "epsilon") -> Any:
    return sampling_scheduler(name, steps, prediction, *BETAS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_gives_equal_images_for_equal_seeds_in_every_batch(name: str) -> None:
    torch.manual_seed(0)
    networks = tiny_autoencoder(), tiny_diffusion()
    model = LatentDiffusion(*networks, scheduler(name), 1.3, [2, 8, 8], 5, batch_size=2)
    images = model.sample([4, 9, 4, 9])
    assert images.shape == (4, 1, 16, 16) and np.isfinite(images).all()
    np.testing.assert_allclose(images[:2], images[2:], atol=1e-5)
    np.testing.assert_allclose(model.sample([4, 9]), images[:2], atol=1e-5)
    again = model.denoise_from(images[:1], strength=0.5, seed=1)
    assert again.shape == (1, 1, 16, 16)


def test_a_rectified_flow_learns_the_way_from_noise_to_the_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = training_scheduler("rflow", 100, "epsilon", *BETAS)
    assert isinstance(flow, RFlowScheduler) and process_of(flow) == "rflow"
    assert process_of(training_scheduler("pndm", 100, "v_prediction", *BETAS)) == "v_prediction"
    latents = torch.stack([torch.full((8, 2, 4, 4), 0.7), torch.zeros(8, 2, 4, 4)], dim=1)
    torch.manual_seed(0)
    clean, target, _, further = LatentBatch(2.0, flow)({"image": latents})
    noise, steps = further["noise"], further["timesteps"]
    torch.testing.assert_close(target, clean - noise)
    assert len(steps) == 8 and steps.min() >= 0 and steps.max() <= 100 and len(set(steps.tolist())) > 2

    class Exact(torch.nn.Module):
        """What a network learns from one latent alone: from wherever it is, straight there."""

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
            share = (timesteps / 100).view(-1, 1, 1, 1).clamp(min=1e-6)
            return (clean[:1] - x) / share

    model = LatentDiffusion(PixelSpace(signed=False), Exact(), flow, 2.0, [2, 4, 4], 10)  # type: ignore[arg-type]
    np.testing.assert_allclose(model.sample([1, 2]), 0.7, atol=1e-3)


def test_switches_that_need_betas_refuse_a_rectified_flow() -> None:
    flow = scheduler("rflow")
    with pytest.raises(ConfigurationError, match="ambient_above needs a noise schedule with betas"):
        AmbientBatch(1.0, flow, 0.5)
    with pytest.raises(ConfigurationError, match="repel and dissimilarity need a noise schedule with betas"):
        CorrectedDiffusion(tiny_diffusion(), flow, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="scheduler must be one of ddim, ddpm, pndm, rflow, got 'euler'"):
        scheduler("euler")


def test_weights_say_which_sampler_they_were_trained_for(tmp_path: Path) -> None:
    autoencoder, diffusion = tiny_autoencoder(), tiny_diffusion()
    files = (
        save_weights(tmp_path / "a.pt", autoencoder),
        save_weights(tmp_path / "d.pt", diffusion, prediction_type="rflow"),
    )
    with pytest.raises(GeneratorError, match=r"was trained with prediction_type rflow.*set scheduler to rflow"):
        assemble(autoencoder, diffusion, scheduler("ddim", 60), *files, [2, 8, 8])
    assert assemble(autoencoder, diffusion, scheduler("rflow", 60), *files, [2, 8, 8]).sample([1]).shape == (
        1,
        1,
        16,
        16,
    )
    save_weights(files[1], diffusion, prediction_type="epsilon")
    with pytest.raises(GeneratorError, match="set scheduler to ddim, ddpm or pndm"):
        assemble(autoencoder, diffusion, scheduler("rflow", 60), *files, [2, 8, 8])


def test_without_a_first_stage_the_images_themselves_are_diffused(tmp_path: Path) -> None:
    stage = chosen("none")
    pixels = np.random.default_rng(0).random((6, 1, 8, 8)).astype(np.float16)
    shape = latent_shape([8, 8], 3, 2, "none", 1)
    assert shape == [1, 8, 8]
    latents = encode_latents(pixels, stage, tmp_path, "training", shape, progress=False)
    np.testing.assert_allclose(latents.values[:, 0, 0], pixels * 2.0 - 1, atol=2e-3)
    assert not latents.values[:, 0, 1].any() and latents.scale_factor == pytest.approx(1 / (2 * pixels.std()), rel=1e-2)
    diffusion = save_weights(tmp_path / "model.pt", tiny_diffusion(channels=1), scale_factor=latents.scale_factor)
    model = assemble(stage, tiny_diffusion(channels=1), scheduler("ddpm", 60), "nowhere.pt", diffusion, shape)
    np.testing.assert_allclose(model.round_trip(pixels), pixels, atol=1e-3)
    assert model.sample([1, 2]).shape == (2, 1, 8, 8)
    with pytest.raises(ConfigurationError, match=r"first_stage is none.*Go on with train_diffusion"):
        trainable(stage)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_vq_vae_is_a_first_stage(dims: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = vector_quantized(dims, 1, [4, 8], 1, 2, 16)
    assert chosen("vqvae", vqvae=network) is network is trainable(network)
    images = torch.rand(3, 1, *(16,) * dims)
    objective = AutoencoderObjective(kl_weight=1e6)
    loss = objective.loss(objective(images, network), images)
    loss.backward()
    l1 = float((network(images)[0] - images).abs().mean())
    assert l1 - 0.3 < float(loss) < l1 + 5 and next(network.parameters()).grad is not None, "no KL term in it"
    network.eval()
    shape = latent_shape([16] * dims, 2, 2, "vqvae", 1)
    latents = encode_latents(images.numpy(), network, tmp_path, "training", shape, progress=False)
    codes = network.quantizer.quantizer.embedding.weight.detach().numpy()
    found = latents.values[:, 0, 0].reshape(3, 2, -1).transpose(0, 2, 1).reshape(-1, 2)
    nearest = np.abs(found[:, None] - codes[None]).max(axis=2).min(axis=1)
    assert nearest.max() < 2e-3, "latents are entries of the codebook"
    model = LatentDiffusion(network, tiny_diffusion(dims), scheduler("pndm"), 1.0, shape, 4)
    with torch.no_grad():
        np.testing.assert_allclose(
            model.round_trip(images.numpy()), reconstruction(network, images).clamp(0, 1), atol=1e-5
        )
    assert model.sample([1, 2]).shape == (2, 1, *(16,) * dims)
    with pytest.raises(GeneratorError, match="the autoencoder has 2 latent channels, latent_shape is"):
        LatentDiffusion(network, tiny_diffusion(dims, 3), scheduler("ddim"), 1.0, [3, *shape[1:]], 4)
    with pytest.raises(ConfigurationError, match="first_stage must be one of autoencoder, vqvae, none, got 'vqgan'"):
        chosen("vqgan")
