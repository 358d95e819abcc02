# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A small latent diffusion model, trained on a cohort in minutes on a CPU: for planting copies that it made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from monai.utils import set_determinism
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from monai_memo.generators.latent_diffusion import LatentDiffusion
from monai_memo.generators.latents import latent_shape
from monai_memo.progress import Progress
from monai_memo.sealing import fingerprint, is_sealed, load_torch, save_torch, write_sealed

STEPS, INFERENCE_STEPS, BATCH, DIFFUSION_BATCH = 1000, 50, 8, 32
CHANNELS = 4  # of the latents
SAVE_EVERY = 200


def _networks(spatial_dims: int) -> tuple[AutoencoderKL, DiffusionModelUNet]:
    """Autoencoder (4 times smaller per axis) and diffusion model; lengths of images are multiples of 16."""
    autoencoder = AutoencoderKL(
        spatial_dims=spatial_dims, in_channels=1, out_channels=1, channels=(16, 32, 32), num_res_blocks=1,
        latent_channels=CHANNELS, norm_num_groups=8, attention_levels=(False, False, False),
        with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    diffusion = DiffusionModelUNet(
        spatial_dims=spatial_dims, in_channels=CHANNELS, out_channels=CHANNELS, channels=(32, 64, 64), num_res_blocks=1,
        attention_levels=(False, False, False), norm_num_groups=8, num_head_channels=8,
    )  # fmt: skip
    return autoencoder, diffusion


def _save_state(state: dict[str, Any], path: Path) -> None:
    save_torch(path, state)


class _Stage:
    """One network's training: steps, a checkpoint now and then, and the same draws after a resume."""

    def __init__(self, name: str, network: torch.nn.Module, path: Path, rate: float, steps: int, identity: str) -> None:
        self.name, self.network, self.path, self.steps, self.identity = name, network, path, steps, identity
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps, eta_min=rate / 20)
        self.done = 0
        if is_sealed(path, identity):
            found = load_torch(path)
            network.load_state_dict(found["network"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.schedule.load_state_dict(found["schedule"])
            self.done = int(found["done"])

    def run(self, loss_of: Callable[[torch.Generator], Tensor], seed: int, progress: bool) -> None:
        self.network.train()
        with Progress(self.steps, self.name, self.done, progress) as bar:
            self._steps(loss_of, seed, bar)
        self.network.eval()

    def _steps(self, loss_of: Callable[[torch.Generator], Tensor], seed: int, bar: Progress) -> None:
        while self.done < self.steps:
            draws = torch.Generator().manual_seed(seed * 1_000_003 + self.done)
            torch.manual_seed(seed * 1_000_003 + self.done)  # the autoencoder samples from torch's own generator
            loss = loss_of(draws)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.done += 1
            bar.update()
            if self.done % SAVE_EVERY == 0 or self.done == self.steps:
                state = {
                    "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(),
                    "schedule": self.schedule.state_dict(), "done": self.done,
                }  # fmt: skip
                write_sealed(self.path, partial(_save_state, state), self.identity)


def train_small_generator(
    pixels: NDArray[np.floating],
    folder: str | Path,
    autoencoder_steps: int = 1500,
    diffusion_steps: int = 3000,
    seed: int = 0,
    progress: bool = True,
    device: str | torch.device = "cpu",
) -> LatentDiffusion:
    """Train on the cohort whose copies are to be planted; goes on where it was interrupted.

    With other images or settings it begins anew.

    Args:
        pixels: ``(n, 1, *spatial)`` in [0, 1], lengths multiples of 16.
        folder: for the checkpoints of this training alone.
        autoencoder_steps: of 8 images each.
        diffusion_steps: of 32 images each.
        seed: of weights, order and noise.
        progress: show progress bars.
        device: that is trained and sampled on; with another one training begins anew.
    """
    folder, n, place = Path(folder), len(pixels), torch.device(device)
    set_determinism(seed)
    autoencoder, diffusion = (network.to(place) for network in _networks(pixels.ndim - 2))
    # As in MONAI's latent diffusion examples.
    scheduler = DDIMScheduler(
        num_train_timesteps=STEPS, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False
    )
    made_from = [seed, autoencoder_steps, diffusion_steps, autoencoder, diffusion, scheduler]
    made_from += [] if place.type == "cpu" else [place.type]
    identity = fingerprint("small generator", made_from, [pixels])

    def batch(draws: torch.Generator) -> Tensor:
        rows = torch.randint(n, (BATCH,), generator=draws).numpy()
        return torch.from_numpy(np.asarray(pixels[np.sort(rows)], dtype=np.float32)).to(place)

    def autoencoder_loss(draws: torch.Generator) -> Tensor:
        images = batch(draws)
        rebuilt, mean, deviation = autoencoder(images)
        divergence = 0.5 * (mean**2 + deviation**2 - torch.log(deviation**2 + 1e-12) - 1).mean()
        return functional.l1_loss(rebuilt, images) + 1e-4 * divergence

    _Stage("train autoencoder", autoencoder, folder / "autoencoder.pt", 1e-3, autoencoder_steps, identity).run(
        autoencoder_loss, seed, progress
    )
    with torch.no_grad():
        images = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
        latents = torch.cat([autoencoder.encode(part.to(place))[0] for part in images.split(BATCH)])
    scale = float(1 / latents.std())

    def diffusion_loss(draws: torch.Generator) -> Tensor:
        latent = latents[torch.randint(n, (DIFFUSION_BATCH,), generator=draws).to(place)] * scale
        noise = torch.randn(latent.shape, generator=draws).to(place)
        steps = torch.randint(STEPS, (len(latent),), generator=draws).to(place)
        predicted = diffusion(scheduler.add_noise(latent, noise, steps), timesteps=steps)
        return functional.mse_loss(predicted, noise)

    _Stage("train diffusion model", diffusion, folder / "diffusion.pt", 1e-3, diffusion_steps, identity).run(
        diffusion_loss, seed, progress
    )
    shape = latent_shape(pixels.shape[2:], CHANNELS, levels=3)
    return LatentDiffusion(autoencoder, diffusion, scheduler, scale, shape, INFERENCE_STEPS, BATCH, place)
