# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What the trainings of a variational autoencoder and of a GAN share.

Both are trained on images as they are, with checkpoints: a training that was killed, or that a longer run goes on with,
continues at the last epoch and ends with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from numpy.typing import NDArray
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators.batches import ImageBatch, augmentation_views
from monai_memo.generators.latent_diffusion import starting_noise
from monai_memo.generators.saving import newest_checkpoint
from monai_memo.sampling import Conditions, refuse_conditions
from monai_memo.settings import Settings
from monai_memo.training.batches import PixelDataset, SeededLoader, SeededSteps
from monai_memo.training.checkpoints import AtomicCheckpointSaver, GradScalers
from monai_memo.training.guards import StopAtNaN

BATCH = 64


@dataclass(frozen=True)
class PixelTraining:
    """What both trainings share.

    Attributes:
        pixels: ``(n, channels, *spatial)`` in [0, 1], the training images.
        augmentation: see ``generators.batches.augmentation_views``.
        steps: optimiser steps.
        seed: of weights, order, noise and augmentation.
        folder: for checkpoints.
        settings: of ``study.settings.VariationalAutoencoderSettings`` or ``GanSettings``.
        device: that networks are trained on.
    """

    pixels: NDArray[np.floating]
    augmentation: str
    steps: int
    seed: int
    folder: Path
    settings: Mapping[str, Any]
    device: str = "cpu"

    def with_defaults(self, model: type[Settings]) -> dict[str, Any]:
        """Settings in their types, with defaults.

        Raises:
            ConfigurationError: a setting that is not known or out of range, or steps that are no whole epochs.
        """
        settings = model(**self.settings).to_dict()
        epochs_of(self.steps, settings["steps_per_epoch"])
        return settings

    def run(
        self,
        make_trainer: Callable[..., Engine],
        settings: Mapping[str, Any],
        state: dict[str, Any],
        losses: Sequence[str],
    ) -> None:
        """Train from the newest checkpoint on.

        Args:
            make_trainer: takes ``max_epochs``, ``train_data_loader`` and ``train_handlers``.
            settings: with defaults.
            state: what checkpoints hold, by name.
            losses: names of losses in the trainer's output, watched for NaN.
        """
        resume = newest_checkpoint(
            self.folder,
            {
                **settings,
                "state": state,
                "losses": list(losses),
                "augmentation": self.augmentation,
                "seed": self.seed,
                "device": torch.device(self.device),
            },
            [self.pixels],
        )
        loader = SeededLoader(PixelDataset(self.pixels), settings["batch_size"], self.seed, settings["steps_per_epoch"])
        trainer = make_trainer(
            max_epochs=epochs_of(self.steps, settings["steps_per_epoch"]),
            train_data_loader=loader,
            train_handlers=[loader, SeededSteps(self.seed), StopAtNaN(losses)],
        )
        state = {**state, "scalers": GradScalers(trainer), "trainer": trainer}
        if resume is not None:
            CheckpointLoader(resume, state, map_location=self.device).attach(trainer)
        AtomicCheckpointSaver(str(self.folder), state, save_interval=1, n_saved=2).attach(trainer)
        trainer.run()

    @property
    def batches(self) -> ImageBatch:
        return ImageBatch(augmentation_views(self.augmentation))


def epochs_of(steps: int, steps_per_epoch: int) -> int:
    """Epochs that make up so many steps.

    Raises:
        ConfigurationError: steps that are not a multiple of ``steps_per_epoch``.
    """
    if steps % steps_per_epoch:
        raise ConfigurationError(f"steps must be a multiple of steps_per_epoch ({steps_per_epoch}), got {steps}")
    return steps // steps_per_epoch


@dataclass(frozen=True)
class PriorGenerator:
    """Images decoded from standard normal latents: a ``TrainedGenerator``.

    Attributes:
        decode: ``(n, latent_size)`` to images.
        network: that ``decode`` belongs to.
        latent_size: numbers in a latent.
        device: that the network lies on.
        parameters: see ``TrainedGenerator``.
    """

    decode: Callable[[Tensor], Tensor]
    network: nn.Module
    latent_size: int
    device: str
    parameters: int

    def sample(self, seeds: Sequence[int], conditions: Conditions | None = None) -> NDArray[np.float32]:
        """See ``monai_memo.sampling.Generator``; there are no conditions."""
        refuse_conditions(conditions)
        blocks = []
        self.network.eval()
        with torch.inference_mode():
            for start in range(0, len(seeds), BATCH):
                noise = starting_noise(seeds[start : start + BATCH], (self.latent_size,)).to(self.device)
                blocks.append(self.decode(noise).clamp(0, 1).cpu().numpy())
        return np.concatenate(blocks)
