# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""One pair of images: the training image as it lies in the synthetic one, and where the two agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from monai_memo.registration.affine import resized, warp
from monai_memo.registration.filters import structured
from monai_memo.registration.lncc import combine, lncc_maps, matched_blur, profiles_of
from monai_memo.search.colours import colour_agreement, fainter
from monai_memo.search.gallery import Gallery, as_tensor, grey, require_images
from monai_memo.search.reranker import RegisteredReranker
from monai_memo.search.runner import Runner

ALIGNED_LENGTH = {2: 64, 3: 32}


@dataclass(frozen=True)
class PairComparison:
    """A pair after alignment.

    Attributes:
        aligned: ``(channels, *spatial)``, the training image brought to the synthetic one; grey where it ends.
        agreement: ``(*spatial)``, local correlation of grey values from -1 to 1, over all bands; 0 where hidden.
        similarity: verified similarity of the pair, -1 to 1; of colour images by their colours as well.
        transform: ``(dims, dims + 1)``, see ``registration.affine``.
        mirrored: whether the training image had to be mirrored.
    """

    aligned: NDArray[np.float32]
    agreement: NDArray[np.float32]
    similarity: float
    transform: NDArray[np.float32]
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
    require_images(synthetic[None], "the synthetic image of a pair")
    require_images(training[None], "the training image of a pair")
    shape = synthetic.shape[1:]
    size = tuple(min(length, ALIGNED_LENGTH[len(shape)]) for length in shape)
    runner, here = Runner(), torch.device("cpu")
    with torch.inference_mode():
        first, second = (resized(grey(as_tensor(image[None], here)), size) for image in (synthetic, training))
        reranker = RegisteredReranker(refined=1)
        reranker.fit(Gallery(second.numpy()), runner)
        found = reranker(first, torch.zeros(1, 1, dtype=torch.long), None, runner)
        theta, visible = found.transforms[0], structured(first)
        sharp = combine(profiles_of(first, visible, second, theta))
        blur = matched_blur(first, visible, second, theta, sharp)
        maps, visible = lncc_maps(first, visible, second, theta, blur)
        combined = combine(maps.movedim(1, -1)).unsqueeze(1) * visible
        mode = "bilinear" if len(shape) == 2 else "trilinear"
        agreement = functional.interpolate(combined, size=shape, mode=mode, align_corners=False)[0, 0]
        image = torch.from_numpy(np.ascontiguousarray(training, dtype=np.float32))[None]
        aligned, inside = warp(image, theta)
        similarity = found.similarity[0].numpy()
        if len(image[0]) == 3:
            pair = as_tensor(synthetic[None], here), image
            colours = colour_agreement(*pair, theta, torch.zeros(1, dtype=torch.bool)).numpy()
            similarity = fainter(similarity, colours)
    transform = theta[0].numpy()
    return PairComparison(
        aligned=torch.where(inside > 0, aligned, torch.full_like(aligned, 0.5))[0].numpy(),
        agreement=agreement.numpy(),
        similarity=float(similarity[0]),
        transform=transform,
        mirrored=bool(np.linalg.det(transform[:, :-1]) < 0),
    )
