# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Candidates without a network: small band-passed versions of a query, in every place, against all training images.

An embedding forgets what it was not trained to keep, and is only as good as its training. This search is exhaustive and
needs none; it is the safety net under the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from monai_memo.registration.coarse import local_contrast, resized, sampling_grid, transforms
from monai_memo.registration.filters import structured

LENGTH = {2: 16, 3: 10}
ROTATIONS = {2: (-20.0, -10.0, 0.0, 10.0, 20.0), 3: (-12.0, 0.0, 12.0)}
ZOOMS = (0.86, 1.0, 1.16)
SHIFTS = {2: (-2, -1, 0, 1, 2), 3: (-1, 0, 1)}  # small pixels
BAND = (0.6, 2.0, 3.0)


class TemplateSearch:
    """All training images as small templates.

    Args:
        images: ``(n, 1, *spatial)`` blocks of the training cohort, in order.
        shape: spatial shape of the images.
    """

    def __init__(self, images: Iterable[Tensor], shape: Sequence[int]) -> None:
        dims = len(shape)
        self.shape = tuple(min(length, LENGTH[dims]) for length in shape)
        self.transforms = transforms(dims, ROTATIONS[dims], ZOOMS)
        self.templates = torch.cat([_standard(self._features(block, torch.ones_like(block))) for block in images])

    def _features(self, images: Tensor, mask: Tensor) -> Tensor:
        small = resized(images * mask, self.shape) / resized(mask, self.shape).clamp(min=1e-3)
        kept = (resized(mask, self.shape) > 0.5).to(images.dtype)
        return local_contrast(small, kept, *BAND)

    def __call__(self, query: Tensor, k: int) -> NDArray[np.int64]:
        """The ``k`` training images that correlate best with the query in any place.

        Args:
            query: ``(1, 1, *spatial)`` in [0, 1].
        """
        dims, count = len(self.shape), len(self.transforms)
        features = self._features(query, structured(query))
        turned = torch.cat([self.transforms, torch.zeros(count, dims, 1)], dim=2)
        views = functional.grid_sample(
            features.expand(count, -1, *self.shape),
            sampling_grid(turned, self.shape),
            padding_mode="zeros",
            align_corners=False,
        )
        most = max(SHIFTS[dims])
        padded = functional.pad(views, [most] * (2 * dims))
        moved = []
        for shift in product(SHIFTS[dims], repeat=dims):
            window = tuple(
                slice(most + step, most + step + length) for step, length in zip(shift, self.shape, strict=True)
            )
            moved.append(padded[(slice(None), slice(None), *window)])
        correlation = (_standard(torch.cat(moved)) @ self.templates.T).amax(dim=0)
        return correlation.topk(min(k, len(self.templates))).indices.numpy().astype(np.int64)


def _standard(features: Tensor) -> Tensor:
    """Rows of mean 0 and length 1."""
    flat = features.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6)
