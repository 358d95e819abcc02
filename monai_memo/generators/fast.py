# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Generators that are ready in seconds to minutes, to try detectors on: the two ends, and a diffusion model between.

A detector has to call the samples of ``Memorizer`` copies and those of ``PrincipalGaussian`` none: the one draws
training images under a little noise, the other knows nothing of them but mean and covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_memo.generators.latent_diffusion import starting_noise
from monai_memo.sampling import Conditions, refuse_conditions

Pixels = NDArray[np.floating]
SMALLEST_DEVIATION = 1e-4  # of a principal component; below it there is nothing to whiten
BATCH, FREQUENCIES, SAMPLING_STEPS = 128, 16, 50


class Memorizer:
    """What a perfectly overfitted diffusion model draws: training images under a little noise.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        noise: standard deviation, of the intensity range.
    """

    def __init__(self, pixels: Pixels, noise: float = 0.02) -> None:
        self.pixels, self.noise = pixels, noise

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``sampling.Generator``."""
        refuse_conditions(conditions)
        drawn = []
        for seed in seeds:
            rng = np.random.default_rng([seed, 1])
            image = np.asarray(self.pixels[int(rng.integers(len(self.pixels)))], dtype=np.float32)
            drawn.append(np.clip(image + rng.normal(0, self.noise, image.shape), 0, 1))
        return np.stack(drawn).astype(np.float32)


class PrincipalComponents:
    """Images as numbers of variance 1 along their principal components.

    Args:
        pixels: ``(n, channels, *spatial)``.
        components: at most so many, and fewer than images.
    """

    def __init__(self, pixels: Pixels, components: int = 128) -> None:
        self.shape = pixels.shape[1:]
        flat = torch.from_numpy(np.asarray(pixels, dtype=np.float32)).flatten(1)
        self.mean = flat.mean(dim=0)
        _, lengths, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        deviations = lengths / max(1, len(flat) - 1) ** 0.5
        kept = min(components, max(1, len(flat) - 1), int((deviations > SMALLEST_DEVIATION).sum()) or 1)
        self.deviations, self.axes = deviations[:kept].clamp(min=SMALLEST_DEVIATION), axes[:kept]
        self.latents = (flat - self.mean) @ self.axes.T / self.deviations

    def images(self, latents: Tensor) -> NDArray[np.float32]:
        """``(n, components)`` to ``(n, channels, *spatial)`` in [0, 1]."""
        flat = self.mean + (latents * self.deviations) @ self.axes
        return flat.clamp(0, 1).view(-1, *self.shape).numpy()


class PrincipalGaussian:
    """Mean and covariance of the training images, nothing else: soft images that are near to everybody.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        components: principal components that are drawn.
    """

    def __init__(self, pixels: Pixels, components: int = 128) -> None:
        self.space = PrincipalComponents(pixels, components)

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``sampling.Generator``."""
        refuse_conditions(conditions)
        return self.space.images(starting_noise(seeds, self.space.latents.shape[1:]))


class _Denoiser(nn.Module):
    def __init__(self, values: int, hidden: int) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * 2 ** torch.linspace(0, 6, FREQUENCIES))
        self.layers = nn.Sequential(
            nn.Linear(values + 2 * FREQUENCIES, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, values),
        )  # fmt: skip

    def forward(self, noisy: Tensor, times: Tensor) -> Tensor:
        """``(n, values)`` at ``(n,)`` times from 0 (image) to 1 (noise) to velocities."""
        angles = times[:, None] * self.frequencies
        result: Tensor = self.layers(torch.cat([noisy, angles.sin(), angles.cos()], dim=1))
        return result


class PrincipalDiffusion:
    """A diffusion model of principal components: minutes on a processor, and it memorizes when trained for long.

    Velocity prediction (Salimans and Ho 2022) on a cosine schedule; sampled by DDIM.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        components: principal components that are drawn.
        seed: of weights and training.
        hidden: width of the network.
        device: that it is trained and sampled on.
    """

    def __init__(
        self,
        pixels: Pixels,
        components: int = 128,
        seed: int = 0,
        hidden: int = 512,
        device: str | torch.device = "cpu",
    ) -> None:
        self.space, self.seed, self.steps = PrincipalComponents(pixels, components), seed, 0
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _Denoiser(self.space.latents.shape[1], hidden).to(self.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def train(self, steps: int) -> PrincipalDiffusion:
        """Go on until so many steps have been done in all: the same weights with and without halts."""
        self.network.train()
        latents = self.space.latents.to(self.device)
        for step in range(self.steps, steps):
            draws = torch.Generator().manual_seed(_step_seed(self.seed, step))
            clean = latents[torch.randint(len(latents), (BATCH,), generator=draws).to(self.device)]
            noise = torch.randn(clean.shape, generator=draws).to(self.device)
            times = torch.rand(BATCH, generator=draws).to(self.device)
            keep, share = _shares(times)
            velocity = keep * noise - share * clean
            loss = nn.functional.mse_loss(self.network(keep * clean + share * noise, times), velocity)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.steps = max(self.steps, steps)
        return self

    @torch.no_grad()
    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``sampling.Generator``."""
        refuse_conditions(conditions)
        self.network.eval()
        values = starting_noise(seeds, self.space.latents.shape[1:]).to(self.device)
        times = torch.linspace(0.999, 0, SAMPLING_STEPS + 1, device=self.device)
        for now, then in pairwise(times):
            keep, share = _shares(now.expand(len(values)))
            velocity = self.network(values, now.expand(len(values)))
            clean, noise = keep * values - share * velocity, share * values + keep * velocity
            keep, share = _shares(then.expand(len(values)))
            values = keep * clean + share * noise
        return self.space.images(values.cpu())


def _step_seed(seed: int, step: int) -> int:
    """Of the draws of one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def _shares(times: Tensor) -> tuple[Tensor, Tensor]:
    """Of image and noise, ``(n, 1)`` each; their squares add up to 1."""
    angle = (0.5 * math.pi * times)[:, None]
    return angle.cos(), angle.sin()
