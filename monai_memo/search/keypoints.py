# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Keypoints of pictures: places that are found again when an image is moved, turned, zoomed, cropped or framed.

SIFT (Lowe 2004, "Distinctive image features from scale-invariant keypoints"), by OpenCV. Places are in the units of
``registration.affine``: from the centre, in half lengths of the longest axis, last axis first. Descriptors of a mirror
image and of a negative are those of the image in another order, and are not calculated again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LENGTH = 128  # pixels of the longest axis; SIFT looks at twice of that as well
PER_IMAGE = 96
CONTRAST = 0.02
CELLS, DIRECTIONS = 4, 8  # of a descriptor: cells along each axis, directions in each cell
VALUES = CELLS * CELLS * DIRECTIONS
MIRRORED, INVERTED = 1, 2  # bits of a variant
VARIANTS = 4


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of ``n`` images, strongest first; rows beyond ``counts`` are empty.

    Attributes:
        descriptors: ``(n, most, 128)`` uint8.
        frames: ``(n, most, 4)`` float32: place (last axis first), size in the same unit, angle in radians.
        counts: ``(n,)`` keypoints of each image.
    """

    descriptors: Tensor
    frames: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def some(self, rows: slice, device: torch.device) -> Keypoints:
        """Those of some of the images, on a device."""
        return Keypoints(self.descriptors[rows].to(device), self.frames[rows].to(device), self.counts[rows].to(device))


def _orders() -> Tensor:
    """``(variants, 128)``: where each value of a variant's descriptor stands in that of the image as it is."""
    row, column, direction = np.meshgrid(np.arange(CELLS), np.arange(CELLS), np.arange(DIRECTIONS), indexing="ij")
    orders = []
    for variant in range(VARIANTS):
        r, c, d = row, column, direction
        if variant & MIRRORED:  # along the keypoint's own direction all stays, across it sides are exchanged
            r, d = CELLS - 1 - r, -d % DIRECTIONS
        if variant & INVERTED:  # every slope turns round, and with them the keypoint's own direction
            r, c = CELLS - 1 - r, CELLS - 1 - c
        orders.append(((r * CELLS + c) * DIRECTIONS + d).ravel())
    return torch.from_numpy(np.stack(orders))


ORDERS = _orders()


def variants_of(points: Keypoints) -> tuple[Tensor, Tensor]:
    """Keypoints of images as they are, mirrored, inverted, and both.

    Returns:
        descriptors ``(n, 4, most, 128)`` and frames ``(n, 4, most, 4)``. Mirrored means that the last axis has the
        other sign.
    """
    descriptors = points.descriptors[:, :, ORDERS.to(points.descriptors.device)].transpose(1, 2)
    frames = points.frames[:, None].repeat(1, VARIANTS, 1, 1)
    for variant in range(VARIANTS):
        if variant & MIRRORED:
            frames[:, variant, :, 0] *= -1
            frames[:, variant, :, 3] = torch.pi - frames[:, variant, :, 3]
        if variant & INVERTED:
            frames[:, variant, :, 3] += torch.pi
    return descriptors, frames


def keypoints_of(images: NDArray[np.floating], per_image: int = PER_IMAGE, threads: int = 1) -> Keypoints:
    """Keypoints of pictures, on the CPU.

    Args:
        images: ``(n, height, width)`` in [0, 1].
        per_image: strongest keypoints kept.
        threads: that work on different images.
    """
    greys = np.round(255 * np.asarray(images, dtype=np.float32).clip(0, 1)).astype(np.uint8)
    own = cv2.getNumThreads()
    cv2.setNumThreads(1)  # else each of these threads would start as many again, which took longer, measured
    try:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(lambda grey: _described(grey, per_image), greys))
    finally:
        cv2.setNumThreads(own)
    descriptors, frames, counts = (np.stack(part) for part in zip(*found, strict=True))
    return Keypoints(torch.from_numpy(descriptors), torch.from_numpy(frames), torch.from_numpy(counts))


def _described(
    grey: NDArray[np.uint8], per_image: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    descriptors = np.zeros((per_image, VALUES), dtype=np.uint8)
    frames = np.zeros((per_image, 4), dtype=np.float32)
    factor = LENGTH / max(grey.shape)
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    sized = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=how)
    sift = cv2.SIFT.create(nfeatures=per_image, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    found, values = sift.detectAndCompute(sized, None)  # type: ignore[call-overload]
    count = min(len(found), per_image)
    if count:
        height, width = sized.shape
        half = max(height, width) / 2
        rows = np.array([(-one.response, *one.pt, one.angle, one.size) for one in found])
        # Ties of strength would leave their order to the library.
        order = np.lexsort(rows[:, 3::-1].T)[:count]
        _, x, y, angle, size = rows[order].T
        places = (x + 0.5 - width / 2) / half, (y + 0.5 - height / 2) / half
        frames[:count] = np.stack([*places, size / half, np.radians(angle)], axis=1)
        descriptors[:count] = np.clip(values[order], 0, 255)
    return descriptors, frames, np.array(count)
