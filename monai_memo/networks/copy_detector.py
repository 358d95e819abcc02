# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The copy detector: an encoder with a projection head, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Required, TypedDict

from monai.networks.blocks import Convolution
from monai.networks.nets import Regressor, resnet50
from torch import Tensor, nn
from torch.nn import functional

from monai_memo.errors import ConfigurationError

ARCHITECTURES = ("default", "paper")


def correlation_form(embeddings: Tensor) -> Tensor:
    """Centre over components and scale to length 1: inner products become Pearson correlations.

    Args:
        embeddings: ``(batch, dim)``.
    """
    return functional.normalize(embeddings - embeddings.mean(dim=1, keepdim=True), dim=1)


class CopyDetectorArguments(TypedDict, total=False):
    """Arguments of ``CopyDetector``, as a recipe and a detector's file hold them."""

    spatial_dims: Required[int]
    image_size: Required[Sequence[int]]
    in_channels: int
    architecture: str
    embedding_dim: int | None
    width: int | None


class CopyDetector(nn.Module):
    """Encoder and projection head.

    ``default``: residual units with stride 2 (MONAI ``Regressor``) down to 4 per axis, then one linear layer from all
    positions to the embedding. Unlike pooling this keeps where things lie, which is what tells two patients apart.

    ``paper`` (Dar et al., arXiv 2402.01054, Methods): in 2D a ResNet-50 with a 128-dimensional output; in 3D a strided
    convolutional encoder down to 4x4x4, a 1x1x1 convolution to 8 channels, and a head 512-128-32 with dropout.

    Args:
        spatial_dims: 2 or 3.
        image_size: pixels or voxels per axis; 4 times a power of two (``paper`` in 2D: any).
        in_channels: channels of the image.
        architecture: ``"default"`` or ``"paper"``.
        embedding_dim: length of the embedding; the paper's is 128 in 2D and 32 in 3D.
        width: channels after the first layer (``default`` and the paper's 3D encoder).

    Raises:
        ConfigurationError: unknown architecture or an image size that does not come down to 4.

    Example:
        >>> import torch
        >>> net = CopyDetector(spatial_dims=2, image_size=[32, 32])
        >>> net.embed(torch.rand(3, 1, 32, 32)).shape
        torch.Size([3, 128])
    """

    def __init__(
        self,
        spatial_dims: int,
        image_size: Sequence[int],
        in_channels: int = 1,
        architecture: str = "default",
        embedding_dim: int | None = None,
        width: int | None = None,
    ) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ConfigurationError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
        if spatial_dims not in (2, 3) or len(image_size) != spatial_dims:
            raise ConfigurationError(
                f"image_size must have one number per axis in 2D or 3D, got {list(image_size)} for {spatial_dims} axes"
            )
        self.spatial_dims, self.in_channels, self.image_size = spatial_dims, in_channels, tuple(image_size)
        self.architecture = architecture
        if architecture == "paper" and spatial_dims == 2:
            self.embedding_dim = embedding_dim or 128
            self.network: nn.Module = resnet50(
                pretrained=False, spatial_dims=2, n_input_channels=in_channels, num_classes=self.embedding_dim
            )
        elif architecture == "paper":
            self.embedding_dim = embedding_dim or 32
            self.network = _paper_encoder_3d(_stages(image_size), in_channels, width or 16, self.embedding_dim)
        else:
            self.embedding_dim = embedding_dim or 128
            first = width or (32 if spatial_dims == 2 else 16)
            stages = _stages(image_size)
            self.network = Regressor(
                in_shape=(in_channels, *image_size),
                out_shape=(self.embedding_dim,),
                channels=tuple(first * 2 ** min(stage, 2) for stage in range(stages)),
                strides=(2,) * stages,
                kernel_size=3,
                num_res_units=1,
                act="relu",
                norm="batch",
            )

    def forward(self, images: Tensor) -> Tensor:
        """``(batch, channels, *image_size)`` to ``(batch, embedding_dim)``."""
        result: Tensor = self.network(images)
        return result

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings whose inner products are the Pearson correlations of ``forward``'s output."""
        return correlation_form(self(images))


def _stages(image_size: Sequence[int]) -> int:
    """How often the size can be halved until 4 remain on the shortest axis."""
    stages = max(0, (min(image_size) // 4).bit_length() - 1)
    if stages == 0 or any(length % 2**stages for length in image_size):
        suggested = [max(8, 4 * 2 ** max(1, round(length / 4).bit_length() - 1)) for length in image_size]
        raise ConfigurationError(
            f"image_size {list(image_size)} cannot be halved evenly down to 4 per axis; take for example {suggested}"
        )
    return stages


def _paper_encoder_3d(stages: int, in_channels: int, width: int, embedding_dim: int) -> nn.Module:
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in range(stages):
        features = width * 2 ** min(stage, 3)
        layers.append(Convolution(3, channels, features, strides=2, kernel_size=3, act="relu", norm="batch"))
        channels = features
    return nn.Sequential(
        *layers,
        Convolution(3, channels, 8, kernel_size=1, act="relu", norm="batch"),
        # The paper's volumes end at 4x4x4; others are brought there.
        nn.AdaptiveAvgPool3d(4),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(128, embedding_dim),
    )
