# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""High-noise ambient loss (arXiv 2502.21278): at high noise levels the network never sees the clean images.

What decides the layout of a sample is learnt at high noise, and it is there that whole images are memorized. So each
training latent gets noise of its own, once and for all, up to a level; above that level the network is trained to
remove the noise beyond it. The expected target is the same, and what could be learnt by heart is a noisy image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import Scheduler
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_memo.errors import ConfigurationError
from monai_memo.generators.batches import LatentBatch
from monai_memo.generators.latents import Latents


@dataclass(frozen=True)
class AmbientLatents(Dataset[dict[str, Tensor]]):
    """Latents, each with noise that stays the same from epoch to epoch.

    Attributes:
        latents: of the training cohort.
        seed: of the noise.
    """

    latents: Latents
    seed: int = 0
    draws = True  # see SeededLoader

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Tensor]:
        """``{"image": (2, channels, *spatial), "noise": (2, channels, *spatial)}``: draw of the latent, and noise.

        Both are fixed for each variant of an image: a fresh draw of the latent would average out what was hidden.
        """
        item = self.latents[key]["image"]
        position, number = key if isinstance(key, tuple) else (key, 0)
        variant = number % self.latents.values.shape[1]
        state = np.random.SeedSequence([self.seed, 17, position, variant]).generate_state(1, np.uint64)[0]
        draws = torch.Generator().manual_seed(int(state >> 1))
        return {"image": item, "noise": torch.randn((2, *item.shape[1:]), generator=draws)}


class AmbientBatch(LatentBatch):
    """``LatentBatch`` whose targets above a noise level come from noisy latents.

    With ``x_n`` the latent at level ``n`` and ``x_t = a x_n + b e``, the network's noise is compared with
    ``sqrt(1 - alpha_t) / b e``, whose expectation given ``x_t`` is that of the whole noise. Just above the level that
    is a noisy target: both sides are weighted by ``b / sqrt(1 - alpha_t)``, as in the paper's loss. Batches without
    noise of their own (held-out ones) are as in ``LatentBatch``.

    Args:
        scale_factor, scheduler: see ``LatentBatch``.
        above: share of the timesteps above which it is so, between 0 and 1.

    Raises:
        ConfigurationError: a share out of range.
    """

    def __init__(self, scale_factor: float, scheduler: Scheduler, above: float) -> None:
        super().__init__(scale_factor, scheduler)
        if not 0 < above < 1:
            raise ConfigurationError(f"ambient_above must lie between 0 and 1, got {above!r}")
        if self.rectified:
            raise ConfigurationError(
                "ambient_above needs a noise schedule with betas: scheduler rflow has none, leave it out"
            )
        self.level = min(int(above * scheduler.num_train_timesteps), int(scheduler.num_train_timesteps) - 2)

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Tensor]]:
        """See ``LatentBatch``; the arguments of the inferer have ``weights`` as well."""
        clean, target, args, further = super().__call__(batchdata, device, non_blocking, **kwargs)
        if "noise" not in batchdata:
            return clean, target, args, further
        mean, sigma = batchdata["image"].to(clean.device).unbind(dim=1)
        draw, own = batchdata["noise"].to(clean.device).unbind(dim=1)
        hidden = (mean + sigma * draw) * self.scale_factor
        alphas = torch.as_tensor(self.scheduler.alphas_cumprod, device=clean.device, dtype=clean.dtype)
        steps, fresh, shape = further["timesteps"], further["noise"], (-1, *(1,) * (clean.ndim - 1))
        now, start = alphas[steps].view(shape), alphas[self.level]
        high = (steps > self.level).view(shape)
        a = (now / start).sqrt()
        b = (1 - now / start).clamp_min(1e-12).sqrt()
        share = (1 - now).sqrt()
        noise = torch.where(high, (a * (1 - start).sqrt() * own + b * fresh) / share, fresh)
        inputs = torch.where(high, hidden, clean)
        expected = share / b * fresh
        if self.velocity:  # of the noise and of the clean latent that it implies
            noisy = now.sqrt() * inputs + share * noise
            expected = now.sqrt() * expected - share * (noisy - share * expected) / now.sqrt()
        weights = torch.where(high, b / share, torch.ones_like(b))
        aim = torch.where(high, expected, self.get_target(inputs, noise, steps))
        return inputs, weights * aim, args, {**further, "noise": noise, "weights": weights}


class WeightedInferer(DiffusionInferer):
    """MONAI's ``DiffusionInferer``, with a weight for each image of a batch."""

    def __call__(
        self,
        inputs: Tensor,
        diffusion_model: nn.Module,
        noise: Tensor,
        timesteps: Tensor,
        *args: Any,
        weights: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The network's output, times ``weights`` where there are some.

        Args:
            kwargs: of MONAI's inferer, and ``class_labels``, which it does not hand on.
        """
        if "class_labels" in kwargs:
            diffusion_model = partial(diffusion_model, class_labels=kwargs.pop("class_labels"))  # type: ignore[assignment]
        found: Tensor = super().__call__(inputs, diffusion_model, noise, timesteps, *args, **kwargs)
        return found if weights is None else found * weights


def training_latents(latents: Latents, above: float | None, seed: int = 0) -> Latents | AmbientLatents:
    """What a training goes through: the latents as they are, or with noise of their own."""
    return latents if above is None else AmbientLatents(latents, seed)


def training_batch(scale_factor: float, scheduler: Scheduler, above: float | None) -> LatentBatch:
    """``LatentBatch``, or where a level is given ``AmbientBatch``."""
    return LatentBatch(scale_factor, scheduler) if above is None else AmbientBatch(scale_factor, scheduler, above)
