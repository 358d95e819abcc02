# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A small generator for planting: copies that went through an autoencoder or through a diffusion model.

Whoever has a trained generator hands it to the benchmark as an object of the form ``ImageGenerator``. Without one, a
small latent diffusion model is trained on the training cohort itself, in minutes on a CPU.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from monai.utils import set_determinism
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from monai_memo.sealing import fingerprint, is_sealed, load_torch, save_torch, write_sealed

logger = logging.getLogger(__name__)

STEPS, INFERENCE_STEPS, BATCH = 1000, 50, 8
SAVE_EVERY = 200


class ImageGenerator(Protocol):
    """What the benchmark asks of a generator. Images are ``(n, 1, *spatial)`` float32 in [0, 1]."""

    def round_trip(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encode and decode."""
        ...

    def denoise_from(self, images: NDArray[np.float32], strength: float, seed: int) -> NDArray[np.float32]:
        """Add noise up to the share ``strength`` of the diffusion's steps, and denoise again."""
        ...


class SmallLatentDiffusion:
    """Autoencoder (4 times smaller per axis, 4 channels) and a diffusion model on its latents (MONAI networks).

    Args:
        spatial_dims: 2 or 3; lengths of the images have to be multiples of 16.
    """

    def __init__(self, spatial_dims: int) -> None:
        self.autoencoder = AutoencoderKL(
            spatial_dims=spatial_dims, in_channels=1, out_channels=1, channels=(16, 32, 32), num_res_blocks=1,
            latent_channels=4, norm_num_groups=8, attention_levels=(False, False, False),
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
        )  # fmt: skip
        self.unet = DiffusionModelUNet(
            spatial_dims=spatial_dims, in_channels=4, out_channels=4, channels=(32, 64, 64), num_res_blocks=1,
            attention_levels=(False, False, False), norm_num_groups=8, num_head_channels=8,
        )  # fmt: skip
        # As in MONAI's latent diffusion examples.
        self.scheduler = DDIMScheduler(
            num_train_timesteps=STEPS, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195,
            clip_sample=False,
        )  # fmt: skip
        self.scale = 1.0

    def round_trip(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """See ``ImageGenerator``."""
        with torch.inference_mode():
            batches = [self._decode(self._encode(batch)) for batch in _batches(images)]
        return torch.cat(batches).clamp(0, 1).numpy()

    def denoise_from(self, images: NDArray[np.float32], strength: float, seed: int) -> NDArray[np.float32]:
        """See ``ImageGenerator``; deterministic DDIM steps after the noise (as in SDEdit, Meng et al., ICLR 2022)."""
        if not 0 < strength < 1:
            raise ValueError(f"strength must lie between 0 and 1, got {strength}")
        draws = torch.Generator().manual_seed(seed)
        self.scheduler.set_timesteps(INFERENCE_STEPS)
        start = int(strength * STEPS)
        results = []
        with torch.inference_mode():
            for batch in _batches(images):
                latent = self._encode(batch) * self.scale
                noise = torch.randn(latent.shape, generator=draws)
                latent = self.scheduler.add_noise(latent, noise, torch.full((len(batch),), start))
                for step in self.scheduler.timesteps[self.scheduler.timesteps <= start]:
                    predicted = self.unet(latent, timesteps=torch.full((len(batch),), int(step)))
                    latent, _ = self.scheduler.step(predicted, int(step), latent)
                results.append(self._decode(latent / self.scale))
        return torch.cat(results).clamp(0, 1).numpy()

    def _encode(self, images: Tensor) -> Tensor:
        mean: Tensor = self.autoencoder.encode(images)[0]
        return mean

    def _decode(self, latent: Tensor) -> Tensor:
        image: Tensor = self.autoencoder.decode(latent)
        return image

    def state_dict(self) -> dict[str, Any]:
        """Weights and the scale of the latents."""
        return {
            "autoencoder": self.autoencoder.state_dict(),
            "unet": self.unet.state_dict(),
            "scale": self.scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of ``state_dict``."""
        self.autoencoder.load_state_dict(state["autoencoder"])
        self.unet.load_state_dict(state["unet"])
        self.scale = float(state["scale"])


def _batches(images: NDArray[np.float32]) -> list[Tensor]:
    return list(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).split(BATCH))


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

    def run(self, loss_of: Any, seed: int, progress: bool) -> None:
        self.network.train()
        bar = tqdm(
            total=self.steps, initial=self.done, desc=self.name,
            disable=None if progress and self.done < self.steps else True,
        )  # fmt: skip
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
        bar.close()
        self.network.eval()


def train_small_generator(
    pixels: NDArray[np.floating],
    folder: str | Path,
    autoencoder_steps: int = 1500,
    diffusion_steps: int = 3000,
    seed: int = 0,
    progress: bool = True,
) -> SmallLatentDiffusion:
    """Train on the cohort whose copies are to be planted; goes on where it was interrupted.

    With other images or settings it begins anew.

    Args:
        pixels: ``(n, 1, *spatial)`` in [0, 1], lengths multiples of 16.
        folder: for the checkpoints of this training alone.
        autoencoder_steps, diffusion_steps: of 8 and 32 images.
    """
    folder = Path(folder)
    set_determinism(seed)
    model = SmallLatentDiffusion(pixels.ndim - 2)
    n = len(pixels)
    made_from = [seed, autoencoder_steps, diffusion_steps, model.autoencoder, model.unet, model.scheduler]
    identity = fingerprint("small generator", made_from, [pixels])

    def batch(draws: torch.Generator, size: int) -> Tensor:
        rows = torch.randint(n, (size,), generator=draws).numpy()
        return torch.from_numpy(np.asarray(pixels[np.sort(rows)], dtype=np.float32))

    def autoencoder_loss(draws: torch.Generator) -> Tensor:
        images = batch(draws, BATCH)
        rebuilt, mean, deviation = model.autoencoder(images)
        divergence = 0.5 * (mean**2 + deviation**2 - torch.log(deviation**2 + 1e-12) - 1).mean()
        return functional.l1_loss(rebuilt, images) + 1e-4 * divergence

    _Stage("train autoencoder", model.autoencoder, folder / "autoencoder.pt", 1e-3, autoencoder_steps, identity).run(
        autoencoder_loss, seed, progress
    )
    with torch.inference_mode():
        parts = [model._encode(part) for part in _batches(np.asarray(pixels, dtype=np.float32))]
    latents = torch.cat(parts).clone()
    model.scale = float(1 / latents.std())

    def diffusion_loss(draws: torch.Generator) -> Tensor:
        latent = latents[torch.randint(n, (32,), generator=draws)] * model.scale
        noise = torch.randn(latent.shape, generator=draws)
        steps = torch.randint(STEPS, (len(latent),), generator=draws)
        predicted = model.unet(model.scheduler.add_noise(latent, noise, steps), timesteps=steps)
        return functional.mse_loss(predicted, noise)

    _Stage("train diffusion model", model.unet, folder / "diffusion.pt", 1e-3, diffusion_steps, identity).run(
        diffusion_loss, seed, progress
    )
    return model
