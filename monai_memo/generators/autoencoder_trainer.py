# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Train an AutoencoderKL with MONAI's ``AdversarialTrainer``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from monai.engines import AdversarialTrainer
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_memo.generators.autoencoder_losses import AdversarialTerms, AutoencoderObjective

LOSSES = ("reconstruction_loss", "generator_loss", "discriminator_loss")


class AutoencoderTrainer(AdversarialTrainer):
    """``AdversarialTrainer`` for an autoencoder and a patch discriminator.

    It runs the autoencoder through its objective, and leaves the networks out of its own state: checkpoints name them
    one by one, and hold tensors and plain types only.

    Args:
        objective: reconstruction, KL and perceptual terms.
        adversarial: adversarial terms.
        arguments: further arguments of ``AdversarialTrainer``.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Iterable[Any] | DataLoader[Any],
        g_network: nn.Module,
        g_optimizer: Optimizer,
        d_network: nn.Module,
        d_optimizer: Optimizer,
        objective: AutoencoderObjective,
        adversarial: AdversarialTerms,
        **arguments: Any,
    ) -> None:
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            train_data_loader=train_data_loader,
            g_network=g_network,
            g_optimizer=g_optimizer,
            g_loss_function=adversarial.generator,
            recon_loss_function=objective.loss,
            d_network=d_network,
            d_optimizer=d_optimizer,
            d_loss_function=adversarial.discriminator,
            g_inferer=objective,
            decollate=False,
            **arguments,
        )

    def _complete_state_dict_user_keys(self) -> None:
        """Nothing: see above."""


def loss_values(output: dict[str, Any]) -> dict[str, float]:
    """The three losses of a step, for ``StatsHandler`` and ``TensorBoardStatsHandler``."""
    return {name: float(output[name].detach()) for name in LOSSES}
