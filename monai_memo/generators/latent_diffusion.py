# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A trained latent diffusion model as one object: sample, reconstruct, and denoise from a real image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer, LatentDiffusionInferer
from monai.networks.nets import DiffusionModelUNet
from monai.networks.schedulers import Scheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators.conditioned import Conditioned
from monai_memo.generators.first_stage import FirstStage, moments, reconstruction
from monai_memo.generators.guidance import Guided
from monai_memo.generators.latents import check_latents
from monai_memo.generators.schedulers import identity_of, set_timesteps
from monai_memo.generators.weights import parameters_of, weights_sha256
from monai_memo.sampling import Conditions, refuse_conditions
from monai_memo.settings import Whole, value_of


class MeanReconstruction(Inferer):
    """Inferer for a first stage: decode the mean of the latents, without noise."""

    def __call__(self, inputs: Tensor, network: nn.Module, *_: Any, **__: Any) -> Tensor:
        """Reconstruction of ``(batch, channels, *spatial)``."""
        return reconstruction(getattr(network, "module", network), inputs)


class LatentDiffusion:
    """First stage (autoencoder, VQ-VAE or none), diffusion model, sampling scheduler and scale factor.

    All methods take and give NumPy arrays ``(n, channels, *spatial)`` float32 in [0, 1]. With a deterministic scheduler
    they are seeded image by image and do not depend on the batch size; one that draws noise at every step (DDPM) is
    seeded batch by batch.

    Args:
        autoencoder, diffusion: trained networks; a ``first_stage.PixelSpace`` for diffusion of the images themselves.
        scheduler: for sampling; DDIM makes it deterministic after the first noise.
        scale_factor: that the diffusion model was trained with.
        latent_shape: ``(channels, *spatial)``.
        num_inference_steps: of the scheduler.
        batch_size: images at once.
        device: that the networks are moved to.

    Raises:
        GeneratorError: networks that do not fit together.
    """

    def __init__(
        self,
        autoencoder: FirstStage,
        diffusion: DiffusionModelUNet | Conditioned,
        scheduler: Scheduler,
        scale_factor: float,
        latent_shape: Sequence[int],
        num_inference_steps: int = 50,
        batch_size: int = 16,
        device: str | torch.device = "cpu",
    ) -> None:
        check_latents(autoencoder, diffusion, latent_shape)
        self.autoencoder, self.diffusion = autoencoder, diffusion
        self.conditioned = diffusion if isinstance(diffusion, Conditioned) else None
        self.scheduler = copy.deepcopy(scheduler)
        most = int(self.scheduler.num_train_timesteps)
        steps: int = value_of("num_inference_steps", num_inference_steps, Whole(1, most))
        set_timesteps(self.scheduler, steps, [int(n) for n in latent_shape])
        self.latent_shape, self.batch_size = (
            tuple(int(n) for n in latent_shape),
            value_of("batch_size", batch_size, Whole(1, 65_536)),
        )
        self.scale_factor, self.device = float(scale_factor), torch.device(device)

    @property
    def spatial_dims(self) -> int:
        return len(self.latent_shape) - 1

    @property
    def parameters(self) -> int:
        """Numbers in the diffusion model."""
        return parameters_of(self.diffusion)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the images."""
        coded = {"conditions": self.conditioned.code.record()} if isinstance(self.conditioned, Guided) else {}
        return {
            "networks": [[network, weights_sha256(network)] for network in (self.autoencoder, self.diffusion)],
            "scale_factor": self.scale_factor,
            "scheduler": identity_of(self.scheduler),
            "timesteps": self.scheduler.timesteps,
            "batch_size": self.batch_size,
            "device": self.device,
            **coded,
        }

    def conditions_of(self, seeds: Sequence[int], conditions: Conditions | None = None) -> dict[str, list[str]]:
        """What ``sample`` draws for these seeds: conditions as given, and those that it draws itself.

        Raises:
            ConfigurationError: conditions that the model does not know.
        """
        if isinstance(self.conditioned, Guided):
            rows = self.conditioned.code.resolved(conditions, seeds)
            return {name: [row[name] for row in rows] for name in self.conditioned.names}
        if self.conditioned is None:
            refuse_conditions(conditions)
        return {name: [str(value) for value in values] for name, values in (conditions or {}).items()}

    def sample(
        self, seeds: Sequence[int], conditions: Conditions | None = None, told: Mapping[str, Tensor] | None = None
    ) -> NDArray[np.float32]:
        """One new image for each seed.

        Args:
            seeds: not negative; equal seeds give equal images. ``sample_seeds`` makes some.
            conditions: of models with conditions, by name. Those that are not given a model of this library draws as
                its training images have them (see ``conditions_of``), one of the zoo has as its config says.
            told: in place of conditions, what the network takes (``ConditionCode.encoded``), one row for each image.

        Raises:
            ConfigurationError: conditions that the model does not know.
        """
        if self.conditioned is None:
            refuse_conditions(conditions)

        def draw(chosen: range) -> Tensor:
            if isinstance(self.conditioned, Guided) and told is not None:
                self.conditioned.tell(told, chosen)
            elif self.conditioned is not None:
                self.conditioned.choose(conditions, chosen, seeds)
            return self._denoise(starting_noise([seeds[i] for i in chosen], self.latent_shape), self.scheduler)

        return self._in_batches(len(seeds), draw, seeds)

    def round_trip(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """What the autoencoder makes of images: encode (mean) and decode."""

        def reconstruct(chosen: range) -> Tensor:
            return reconstruction(self.autoencoder, self._tensor(images, chosen))

        return self._in_batches(len(images), reconstruct)

    def denoise_from(
        self,
        images: NDArray[np.floating],
        strength: float,
        seed: int = 0,
        told: Mapping[str, Tensor] | None = None,
    ) -> NDArray[np.float32]:
        """Add noise to the latents of real images, and let the model remove it: near copies made by the model itself.

        SDEdit, Meng et al., arXiv 2108.01073. The noise is that of exactly this share of the timesteps; it is removed
        from the scheduler's next lower timestep on.

        Args:
            images: ``(n, channels, *spatial)`` in [0, 1].
            strength: share of the timesteps, between 0 (``round_trip``) and 1 (hardly anything of the image left).
            seed: of the noise.
            told: what a network with conditions takes (``ConditionCode.encoded``), one row for each image; by default
                nothing is told.

        Raises:
            ConfigurationError: a strength outside [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ConfigurationError(f"strength must lie between 0 and 1, got {strength!r}")
        scheduler = copy.deepcopy(self.scheduler)
        level = min(int(strength * scheduler.num_train_timesteps), int(scheduler.num_train_timesteps) - 1)
        timesteps = scheduler.timesteps[scheduler.timesteps <= level]
        if strength == 0 or len(timesteps) == 0:
            return self.round_trip(images)
        scheduler.timesteps = timesteps
        # On the CPU and for all images at once: the same on every device and with every batch size.
        draws = torch.Generator().manual_seed(int(seed))
        noise = torch.randn((len(images), *self.latent_shape), generator=draws)

        def draw(chosen: range) -> Tensor:
            if isinstance(self.conditioned, Guided):
                self.conditioned.tell(told or {}, chosen)
            elif self.conditioned is not None:  # what its config says
                self.conditioned.choose(None, chosen, [0] * len(images))
            latents = moments(self.autoencoder, self._tensor(images, chosen))[0] * self.scale_factor
            part = noise[chosen.start : chosen.stop].to(self.device)
            start = torch.full((len(chosen),), level, device=self.device)
            return self._denoise(scheduler.add_noise(latents, part, start), scheduler)

        return self._in_batches(len(images), draw)

    def _tensor(self, images: NDArray[np.floating], chosen: range) -> Tensor:
        return torch.from_numpy(np.asarray(images[chosen.start : chosen.stop], dtype=np.float32)).to(self.device)

    def _denoise(self, noise: Tensor, scheduler: Scheduler) -> Tensor:
        scheduler = copy.deepcopy(scheduler)  # multistep ones remember the batch before
        inferer = LatentDiffusionInferer(scheduler, scale_factor=self.scale_factor)
        result: Tensor = inferer.sample(
            input_noise=noise.to(self.device),
            autoencoder_model=self.autoencoder,
            diffusion_model=self.diffusion,
            scheduler=scheduler,
            verbose=False,
        )
        return result

    def _in_batches(
        self, n: int, make: Callable[[range], Tensor], seeds: Sequence[int] | None = None
    ) -> NDArray[np.float32]:
        networks = (self.autoencoder, self.diffusion)
        modes = [network.training for network in networks]
        for network in networks:
            network.to(self.device).eval()
        blocks = []
        # A scheduler with noise of its own (DDPM) must not disturb the training that goes on around it.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for start in range(0, n, self.batch_size):
                chosen = range(start, min(start + self.batch_size, n))
                torch.manual_seed(start if seeds is None else int(seeds[start]))
                images = make(chosen)
                blocks.append(images.float().clamp(0, 1).cpu().numpy())
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)
        return np.concatenate(blocks) if blocks else np.empty((0,), dtype=np.float32)


def sample_seeds(seed: int, numbers: Iterable[int]) -> list[int]:
    """Seeds of the images with these numbers in a series; two series with different ``seed`` have none in common."""
    return [int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] >> 1) for i in numbers]


def starting_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal noise ``(len(seeds), *shape)``, drawn on the CPU so that it is the same on every device."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s))) for s in seeds])
