# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A GAN with the networks and the trainer of MONAI."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import GanTrainer
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import Discriminator, Generator
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_memo.generators.batches import ImageBatch
from monai_memo.generators.weights import parameters_of
from monai_memo.study.pixel_training import PixelTraining, PriorGenerator
from monai_memo.study.settings import GanSettings


class RealImages(ImageBatch):
    """Augmented images alone, as ``GanTrainer`` takes them."""

    def __call__(self, *arguments: Any, **named: Any) -> Tensor:  # type: ignore[override]
        """``(batch, channels, *spatial)`` in [0, 1]."""
        return super().__call__(*arguments, **named)[0]


def train_gan(training: PixelTraining) -> PriorGenerator:
    """A GAN with MONAI's ``Generator``, ``Discriminator`` and ``GanTrainer`` (Goodfellow et al., arXiv 1406.2661)."""
    settings = training.with_defaults(GanSettings)
    set_determinism(training.seed)
    shape, channels, latent = training.pixels.shape[1:], settings["channels"], settings["latent_size"]
    start = [length // 2 ** len(channels) for length in shape[1:]]
    generator = nn.Sequential(
        Generator(
            latent_shape=(latent,),
            start_shape=(channels[0], *start),
            channels=[*channels[1:], shape[0]],
            strides=[2] * len(channels),
            num_res_units=settings["residual_units"],
        ),
        nn.Sigmoid(),
    ).to(training.device)
    critic_channels = settings["discriminator_channels"]
    discriminator = Discriminator(
        in_shape=shape,
        channels=critic_channels,
        strides=[2] * len(critic_channels),
        num_res_units=settings["residual_units"],
        last_act=None,
    ).to(training.device)
    adversarial = PatchAdversarialLoss(criterion="bce")

    def discriminator_loss(fakes: Tensor, reals: Tensor) -> Tensor:
        on_real = adversarial(discriminator(reals), target_is_real=True, for_discriminator=True)
        on_fake = adversarial(discriminator(fakes.detach()), target_is_real=False, for_discriminator=True)
        result: Tensor = 0.5 * (on_real + on_fake)
        return result

    def generator_loss(fakes: Tensor) -> Tensor:
        result: Tensor = adversarial(discriminator(fakes), target_is_real=True, for_discriminator=False)
        return result

    betas = (0.5, 0.999)  # Radford et al., arXiv 1511.06434
    optimizers = {
        "g_optimizer": torch.optim.Adam(generator.parameters(), settings["learning_rate"], betas),
        "d_optimizer": torch.optim.Adam(discriminator.parameters(), settings["discriminator_learning_rate"], betas),
    }
    networks = {"g_network": generator, "d_network": discriminator}

    def make_trainer(**arguments: Any) -> Engine:
        return GanTrainer(
            device=training.device,
            g_loss_function=generator_loss,
            d_loss_function=discriminator_loss,
            d_prepare_batch=RealImages(training.batches.views),
            latent_shape=latent,
            decollate=False,
            **networks,
            **optimizers,
            **arguments,
        )

    training.run(make_trainer, settings, {**networks, **optimizers}, ["g_loss", "d_loss"])
    return PriorGenerator(generator, generator, latent, training.device, parameters_of(generator))
