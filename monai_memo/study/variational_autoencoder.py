# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A variational autoencoder (MONAI's ``VarAutoEncoder``) whose samples are decoded from its prior."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import SupervisedTrainer
from monai.networks.nets import VarAutoEncoder
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_memo.generators.autoencoder_losses import AutoencoderObjective
from monai_memo.generators.weights import parameters_of
from monai_memo.study.pixel_training import PixelTraining, PriorGenerator
from monai_memo.study.settings import VariationalAutoencoderSettings


class VariationalObjective(AutoencoderObjective):
    """``AutoencoderObjective`` (L1 and KL) for MONAI's ``VarAutoEncoder``, whose latents are a vector."""

    def __call__(self, inputs: Tensor, network: nn.Module, *_: Any, **__: Any) -> Tensor:
        """Reconstruction ``(batch, channels, *spatial)``. Remembers mean and standard deviation for ``loss``."""
        reconstruction, self._mean, log_variance, _ = network(inputs)
        self._sigma = torch.exp(0.5 * log_variance)
        result: Tensor = reconstruction
        return result


def train_variational_autoencoder(training: PixelTraining) -> PriorGenerator:
    """An autoencoder whose samples are decoded from its prior (Kingma & Welling, arXiv 1312.6114).

    The loss is the mean absolute error of a pixel plus ``kl_weight`` times the KL divergence of an image: that of a
    Laplace likelihood with the scale ``kl_weight`` times the number of pixels.
    """
    settings = training.with_defaults(VariationalAutoencoderSettings)
    set_determinism(training.seed)
    shape, channels = training.pixels.shape[1:], settings["channels"]
    network = VarAutoEncoder(
        spatial_dims=len(shape) - 1,
        in_shape=shape,
        out_channels=shape[0],
        latent_size=settings["latent_size"],
        channels=channels,
        strides=[2] * len(channels),
        norm="BATCH",  # instance norm would take the scale of the latents out again, and with it the prior
    ).to(training.device)
    optimizer = torch.optim.Adam(network.parameters(), settings["learning_rate"])
    objective = VariationalObjective(kl_weight=settings["kl_weight"])

    def make_trainer(**arguments: Any) -> Engine:
        return SupervisedTrainer(
            device=training.device,
            network=network,
            optimizer=optimizer,
            loss_function=objective.loss,
            inferer=objective,
            prepare_batch=training.batches,
            decollate=False,
            **arguments,
        )

    training.run(make_trainer, settings, {"network": network, "optimizer": optimizer}, ["loss"])
    return PriorGenerator(
        network.decode_forward, network, settings["latent_size"], training.device, parameters_of(network)
    )
