# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""What stands between images and the diffusion model: an AutoencoderKL, a VQ-VAE, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from monai.networks.nets import VQVAE, AutoencoderKL
from torch import Tensor, nn

from monai_memo.errors import ConfigurationError
from monai_memo.generators.settings import FIRST_STAGES

Network = TypeVar("Network", bound=nn.Module)


class PixelSpace(nn.Module):
    """No first stage: the diffusion model sees the images themselves.

    Args:
        signed: it sees them in [-1, 1]; otherwise in [0, 1].
    """

    def __init__(self, signed: bool = True) -> None:
        super().__init__()
        self.signed = signed

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, which is 0."""
        values = self.encode_stage_2_inputs(images)
        return values, torch.zeros_like(values)

    def encode_stage_2_inputs(self, images: Tensor) -> Tensor:
        """Images in [0, 1] as the diffusion model sees them."""
        return images * 2 - 1 if self.signed else images

    def decode_stage_2_outputs(self, values: Tensor) -> Tensor:
        """And back."""
        return (values + 1) / 2 if self.signed else values

    def reconstruct(self, images: Tensor) -> Tensor:
        """Nothing is lost."""
        return images

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As an AutoencoderKL has it."""
        return images, *self.encode(images)


FirstStage: TypeAlias = AutoencoderKL | VQVAE | PixelSpace


def chosen(kind: str, autoencoder: AutoencoderKL | None = None, vqvae: VQVAE | None = None) -> FirstStage:
    """The first stage of this kind.

    Args:
        kind: ``"autoencoder"``, ``"vqvae"`` or ``"none"``.
        autoencoder, vqvae: networks; the one that was not asked for may be None.

    Raises:
        ConfigurationError: another kind.
    """
    known: dict[str, FirstStage | None] = {"autoencoder": autoencoder, "vqvae": vqvae, "none": PixelSpace()}
    found = known.get(kind)
    if found is None:
        raise ConfigurationError(f"first_stage must be one of {', '.join(FIRST_STAGES)}, got {kind!r}")
    return found


def vector_quantized(
    spatial_dims: int, image_channels: int, channels: Sequence[int], res_blocks: int, latent_channels: int,
    codebook_size: int,
) -> VQVAE:  # fmt: skip
    """A VQ-VAE that shrinks images as an AutoencoderKL of the same channels does: each level after the first halves.

    Args:
        channels: of the AutoencoderKL; the first level, which halves nothing, is left out.
        res_blocks: residual layers of each level.
        latent_channels: numbers of each entry of the codebook.
        codebook_size: entries.

    Raises:
        ConfigurationError: less than two levels.
    """
    widths = [int(width) for width in channels[1:]]
    if not widths:
        raise ConfigurationError(
            f"autoencoder_channels must have two values at least for a VQ-VAE, got {list(channels)}"
        )
    return VQVAE(
        spatial_dims, image_channels, image_channels, channels=widths, num_res_layers=res_blocks,
        num_res_channels=widths, downsample_parameters=[(2, 4, 1, 1)] * len(widths),
        upsample_parameters=[(2, 4, 1, 1, 0)] * len(widths),
        num_embeddings=codebook_size, embedding_dim=latent_channels,
    )  # fmt: skip


def trainable(network: Network) -> Network:
    """The network as it is.

    Raises:
        ConfigurationError: it has nothing to train.
    """
    if not any(True for _ in network.parameters()):
        raise ConfigurationError(
            "first_stage is none: the diffusion model sees the images themselves, and there is no autoencoder to "
            "train. Go on with train_diffusion."
        )
    return network


def moments(first_stage: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of images' latents; a VQ-VAE gives entries of its codebook, which have none."""
    stage: Any = first_stage
    if isinstance(first_stage, VQVAE):
        values: Tensor = stage.encode_stage_2_inputs(images)
        return values, torch.zeros_like(values)
    mean, sigma = stage.encode(images)
    return mean, sigma


def reconstruction(first_stage: nn.Module, images: Tensor) -> Tensor:
    """What the first stage makes of images, without noise."""
    stage: Any = first_stage
    result: Tensor = stage(images)[0] if isinstance(first_stage, VQVAE) else stage.reconstruct(images)
    return result
