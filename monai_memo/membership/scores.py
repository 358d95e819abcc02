# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Scores of images by which a diffusion model may betray what it was trained on: greater for what looks like a member.

Sources: denoising error at fixed timesteps, Carlini et al. (USENIX Security 2023) and Matsumoto et al. (2023); its
difference to a reference model, as calibrated attacks on classifiers do it (Carlini et al., IEEE S&P 2022); proximal
initialization, the "one-query" score of Kong et al. (ICLR 2024). Written from the formulas in the papers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.membership.denoiser import Denoiser
from monai_memo.progress import Progress
from monai_memo.sealing import fingerprint

DENOISING, ONE_QUERY = "denoising", "one query"
LEAST = 1e-12  # of an error, before its logarithm is taken
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Probe:
    """What a model is asked.

    Attributes:
        levels: shares of the timesteps at which noise is added and looked for.
        draws: of the noise, for each image and level.
        query_level: share of the timesteps of the one-query score.
        seed: of the noise.
    """

    levels: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.6)
    draws: int = 4
    query_level: float = 0.2
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """Of the scores, the one that was chosen beforehand first."""
        return [DENOISING, *(f"{DENOISING} at {level:g}" for level in self.levels), ONE_QUERY]

    @property
    def passes(self) -> int:
        """Of the network, for each image."""
        return len(self.levels) * self.draws + 2


def noise_of(image: str, draw: int, seed: int, shape: Sequence[int]) -> Tensor:
    """The noise of an image: the same under model and reference, in every order, batch and cohort.

    Args:
        image: what it is called, here a hash of its pixels.
    """
    number = int(fingerprint("noise of an image", [image, draw, seed], packages=())[:15], 16)
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(number))


def score_images(
    denoiser: Denoiser, images: NDArray[np.floating], names: Sequence[str], probe: Probe, what: str = "ask",
    progress: bool = True, told: Mapping[str, Tensor] | None = None,
) -> Floats:  # fmt: skip
    """Scores of images under one model: minus the logarithm of its errors.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1].
        names: of the images, which decide their noise.
        what: is shown while it takes time.
        told: of a model with conditions, those of the images (``Denoiser.told``); None tells nothing.

    Returns:
        ``(n, scores)`` in the order of ``probe.names``; a difference of two models' scores is the logarithm of the
        ratio of their errors.
    """
    blocks, size = [], denoiser.model.batch_size
    with Progress(len(images), what, shown=progress) as bar:
        for start in range(0, len(images), size):
            latents = denoiser.latents(images[start : start + size])
            chosen = names[start : start + size]
            rows = {name: inputs[start : start + size] for name, inputs in (told or {}).items()}
            errors = [
                torch.stack([
                    _error(denoiser, latents, chosen, draw, level, probe, rows) for draw in range(probe.draws)
                ])
                for level in probe.levels
            ]  # fmt: skip
            logarithms = -_logarithm(torch.stack(errors).mean(dim=1))  # (levels, images), of the mean over draws
            query = -_logarithm(one_query(denoiser, latents, probe.query_level, rows))
            blocks.append(torch.cat([logarithms.mean(dim=0, keepdim=True), logarithms, query[None]]).T.numpy())
            bar.update(len(chosen))
    return np.concatenate(blocks).astype(np.float64)


def _error(
    denoiser: Denoiser, latents: Tensor, names: Sequence[str], draw: int, level: float, probe: Probe,
    told: Mapping[str, Tensor],
) -> Tensor:  # fmt: skip
    noise = torch.stack([noise_of(name, draw, probe.seed, latents.shape[1:]) for name in names])
    at = denoiser.level(level)
    found = denoiser.noise_in(denoiser.noisy(latents, noise, at), at, told)
    return (found - noise).square().flatten(1).mean(dim=1)


def one_query(denoiser: Denoiser, latents: Tensor, level: float, told: Mapping[str, Tensor] | None = None) -> Tensor:
    """How far the noise that the model sees in the clean latents is from what it sees once that noise was added.

    Nothing is drawn: the noise is the model's own answer at the first timestep (proximal initialization).
    """
    own = denoiser.noise_in(latents, 0, told)
    # Its length says little of membership and much of contrast: as long as noise of training is.
    length = own.square().flatten(1).mean(dim=1).clamp(min=LEAST).sqrt()
    own = own / length.view(-1, *(1,) * (own.ndim - 1))
    at = denoiser.level(level)
    return (denoiser.noise_in(denoiser.noisy(latents, own, at), at, told) - own).square().flatten(1).mean(dim=1)


def _logarithm(errors: Tensor) -> Tensor:
    return errors.double().clamp(min=LEAST).log()
