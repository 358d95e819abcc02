# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One pair of images: the training image as it lies in the synthetic one, and where the two agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_memo.registration.coarse import resized, warp
from monai_memo.registration.lncc import agreement_maps, combine, matched_blur
from monai_memo.search.reranker import Verifier, grey

ALIGNED_LENGTH = {2: 64, 3: 32}


@dataclass(frozen=True)
class PairComparison:
    """A pair after alignment.

    Attributes:
        aligned: ``(channels, *spatial)``, the training image brought to the synthetic one; grey where it ends.
        agreement: ``(*spatial)``, local correlation from -1 to 1, over all bands; 0 where hidden.
        similarity: verified similarity of the pair, -1 to 1.
        placement: ``(dims, dims + 1)``, see ``alignment``.
        mirrored: whether the training image had to be mirrored.
    """

    aligned: NDArray[np.float32]
    agreement: NDArray[np.float32]
    similarity: float
    placement: NDArray[np.float32]
    mirrored: bool


def compare_pair(synthetic: NDArray[np.floating], training: NDArray[np.floating]) -> PairComparison:
    """Align a training image with a synthetic one and compare them place by place.

    The alignment is found at 64 pixels (32 voxels) per axis, whatever the size of the images, and then applied to them.

    Args:
        synthetic, training: ``(channels, *spatial)`` in [0, 1], of the same shape, 2D or 3D.

    Raises:
        ValueError: the shapes differ.
    """
    if synthetic.shape != training.shape or synthetic.ndim not in (3, 4):
        raise ValueError(
            f"a pair needs two images of the same shape (channels, *spatial), got {synthetic.shape} and "
            f"{training.shape}"
        )
    shape = synthetic.shape[1:]
    size = tuple(min(length, ALIGNED_LENGTH[len(shape)]) for length in shape)
    with torch.inference_mode():
        first, second = (resized(grey(image[None]), size) for image in (synthetic, training))
        found = Verifier(second.numpy(), refined=1)(first.numpy(), np.array([[0]]), progress=False)
        placement = torch.from_numpy(found.placements[0])
        maps, visible, _ = agreement_maps(first, second, placement, matched_blur(first, second, placement))
        combined = combine(maps.movedim(1, -1)).unsqueeze(1) * visible
        mode = "bilinear" if len(shape) == 2 else "trilinear"
        agreement = functional.interpolate(combined, size=shape, mode=mode, align_corners=False)[0, 0]
        image = torch.from_numpy(np.ascontiguousarray(training, dtype=np.float32))[None]
        aligned, inside = warp(image, placement)
    linear = found.placements[0, 0, :, :-1]
    return PairComparison(
        aligned=torch.where(inside > 0, aligned, torch.full_like(aligned, 0.5))[0].numpy(),
        agreement=agreement.numpy(),
        similarity=float(found.similarity[0, 0]),
        placement=found.placements[0, 0],
        mirrored=bool(np.linalg.det(linear) < 0),
    )
