# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses of an AutoencoderKL in the form that MONAI's ``AdversarialTrainer`` takes.

The trainer hands the reconstruction alone to its losses, the KL term needs mean and standard deviation as well. So the
objective runs the network itself, as the trainer's inferer, and remembers both until the loss is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError

from monai.inferers import Inferer
from monai.losses import PatchAdversarialLoss
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.sealing import load_torch


def kl_divergence(mean: Tensor, sigma: Tensor) -> Tensor:
    """KL divergence of ``N(mean, sigma^2)`` from ``N(0, 1)``, summed over latents, averaged over the batch.

    Kingma & Welling, arXiv 1312.6114, appendix B.

    Args:
        mean, sigma: ``(batch, channels, *latent)``, sigma positive.

    Example:
        >>> import torch
        >>> round(float(kl_divergence(torch.zeros(2, 1, 3), torch.ones(2, 1, 3))), 6)
        0.0
    """
    mean, sigma = mean.float(), sigma.float()  # sums of volumes leave the range of short numbers
    terms = mean.pow(2) + sigma.pow(2) - 2 * sigma.log() - 1
    return 0.5 * terms.flatten(1).sum(dim=1).mean()


class AutoencoderObjective(Inferer):
    """Reconstruction (L1), KL (of a VQ-VAE: distance to the codebook) and, if asked for, perceptual term.

    Args:
        kl_weight: of the KL term per image.
        perceptual_weight: 0 leaves the term out.
        perceptual_weights_file: weights of a ``perceptual_network``; needed where ``perceptual_weight`` is not 0.
        perceptual_network: maps ``(reconstruction, target)`` to a loss, for example MONAI's ``PerceptualLoss`` built
            with ``pretrained=False``; the file is loaded into it.

    Raises:
        ConfigurationError: a perceptual term without network or weights, or a file that is missing or of another
            network.
    """

    def __init__(
        self,
        kl_weight: float = 1e-6,
        perceptual_weight: float = 0.0,
        perceptual_network: nn.Module | None = None,
        perceptual_weights_file: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.kl_weight, self.perceptual_weight = kl_weight, perceptual_weight
        self.perceptual = None
        if perceptual_weight:
            self.perceptual = _perceptual(perceptual_network, perceptual_weights_file)
        self._mean: Tensor | None = None
        self._sigma: Tensor | None = None
        self._quantization: Tensor | None = None

    def __call__(self, inputs: Tensor, network: nn.Module, *_: object, **__: object) -> Tensor:
        """Reconstruction ``(batch, channels, *spatial)``. Remembers the further outputs for ``loss``."""
        reconstruction, *further = network(inputs)
        self._mean, self._sigma, self._quantization = (*further, None) if len(further) == 2 else (None, None, *further)
        result: Tensor = reconstruction
        return result

    def loss(self, reconstruction: Tensor, target: Tensor) -> Tensor:
        """Sum of the weighted terms for the batch that was last run.

        Raises:
            RuntimeError: no batch was run before.
        """
        total = nn.functional.l1_loss(reconstruction.float(), target.float())
        if self._mean is not None and self._sigma is not None:
            total = total + self.kl_weight * kl_divergence(self._mean.float(), self._sigma.float())
        elif self._quantization is not None:
            total = total + self._quantization.float()
        else:
            raise RuntimeError("run the network through this objective before asking for its loss")
        if self.perceptual is not None:
            self.perceptual.to(target.device)
            total = total + self.perceptual_weight * self.perceptual(reconstruction.float(), target.float())
        return total


def _perceptual(network: nn.Module | None, path: str | Path | None) -> nn.Module:
    if network is None or path is None:
        raise ConfigurationError(
            "perceptual_weight is not 0: name a perceptual_network and the file of its weights "
            "(perceptual_weights_file), or set the weight to 0. Nothing is downloaded."
        )
    if not Path(path).is_file():
        raise ConfigurationError(f"no perceptual weights at {path} (perceptual_weights_file)")
    try:
        network.load_state_dict(load_torch(path))
    except (RuntimeError, UnpicklingError, AttributeError, TypeError, ValueError, OSError, EOFError, KeyError) as error:
        raise ConfigurationError(
            f"{path} (perceptual_weights_file) does not fit the perceptual_network {type(network).__name__}: {error}"
        ) from error
    return network.eval().requires_grad_(False)


def _logits(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The discriminator returns its features and, last, the logits; the loss would average over all of them."""
    return output if isinstance(output, Tensor) else output[-1]


class AdversarialTerms:
    """Losses of autoencoder and patch discriminator (MONAI ``PatchAdversarialLoss``, least squares).

    Args:
        weight: of both.
    """

    def __init__(self, weight: float = 0.01) -> None:
        self.weight = weight
        self.adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def generator(self, fake: Tensor | Sequence[Tensor]) -> Tensor:
        """The reconstruction should pass as real. ``fake``: the discriminator's output, features included."""
        result: Tensor = self.weight * self.adversarial(_logits(fake), target_is_real=True, for_discriminator=False)
        return result

    def discriminator(self, real: Tensor | Sequence[Tensor], fake: Tensor | Sequence[Tensor]) -> Tensor:
        """The discriminator should tell both apart."""
        on_real = self.adversarial(_logits(real), target_is_real=True, for_discriminator=True)
        on_fake = self.adversarial(_logits(fake), target_is_real=False, for_discriminator=True)
        result: Tensor = self.weight * 0.5 * (on_real + on_fake)
        return result
