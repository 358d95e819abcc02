# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""NT-Xent for batches of pairs, across ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from monai.losses import ContrastiveLoss
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather


class NTXentLoss(nn.Module):
    """Normalised temperature-scaled cross entropy (SimCLR, Chen et al. 2020), computed by MONAI's ``ContrastiveLoss``.

    Adds what that lacks: input as one batch of pairs, as an Ignite trainer hands it over, and negatives gathered from
    all ranks when training is distributed. Embeddings are centred over their components, so that training and search
    use the same similarity (Pearson correlation).

    Args:
        temperature: 0.07 in Dar et al.

    Example:
        >>> first = torch.eye(4)
        >>> loss = NTXentLoss(temperature=0.1)
        >>> bool(loss(torch.cat([first, first])) < loss(torch.cat([first, first.flip(0)])))
        True
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.loss = ContrastiveLoss(temperature=temperature)

    def forward(self, embeddings: Tensor, target: Tensor | None = None) -> Tensor:
        """Loss of a batch.

        Args:
            embeddings: ``(2 * pairs, dim)``; rows ``i`` and ``i + pairs`` are the two views of one image.
            target: not used; trainers pass one.

        Raises:
            ValueError: an odd number of rows or fewer than two pairs.
        """
        if embeddings.ndim != 2 or len(embeddings) % 2 or len(embeddings) < 4:
            raise ValueError(
                f"embeddings must have shape (2 * pairs, dim) with two pairs or more, got {tuple(embeddings.shape)}"
            )
        embeddings = embeddings - embeddings.mean(dim=1, keepdim=True)
        first, second = embeddings.chunk(2)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # Gradients flow back through the gathering, so that every rank learns from all negatives.
            first, second = torch.cat(all_gather(first)), torch.cat(all_gather(second))
        result: Tensor = self.loss(first, second)
        return result
