# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How good reconstructions and samples are: MONAI's metrics, fitted to small images and to a local feature network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import FIDMetric, MMDMetric, MultiScaleSSIMMetric, PSNRMetric
from numpy.typing import NDArray
from torch import Tensor

from monai_memo.detector.detector import Detector

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli, Bovik 2003, section 4


def ms_ssim_metric(image_size: Sequence[int]) -> MultiScaleSSIMMetric:
    """MS-SSIM with as many of the five scales as the image has room for, weights scaled to a sum of 1.

    The window has 11 pixels where three scales fit, and 7, 5 or 3 on smaller images: values of different image sizes
    are not comparable.
    """
    shortest = min(image_size)
    for kernel in (11, 7, 5, 3):
        scales = sum(1 for level in range(5) if shortest // 2**level >= max(kernel, 3))
        if scales >= 3 or kernel == 3:
            break
    weights = np.array(SCALE_WEIGHTS[: max(1, scales)])
    return MultiScaleSSIMMetric(
        spatial_dims=len(image_size), data_range=1.0, kernel_size=kernel, weights=tuple(weights / weights.sum())
    )


def _tensor(images: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(np.asarray(images, dtype=np.float32))


def _batched(
    metric: PSNRMetric | MultiScaleSSIMMetric, first: NDArray[np.floating], second: NDArray[np.floating], batch: int
) -> NDArray[np.float64]:
    blocks = []
    for start in range(0, len(first), batch):
        rows = slice(start, start + batch)
        blocks.append(np.asarray(metric(_tensor(first[rows]), _tensor(second[rows]))).reshape(-1))
    metric.reset()
    return np.concatenate(blocks).astype(np.float64)


def reconstruction_scores(
    images: NDArray[np.floating], reconstructions: NDArray[np.floating], batch: int = 16
) -> dict[str, float]:
    """PSNR (dB) and MS-SSIM (at most 1), mean and standard deviation over images ``(n, channels, *spatial)``."""
    psnr = _batched(PSNRMetric(max_val=1.0), images, reconstructions, batch)
    similar = _batched(ms_ssim_metric(images.shape[2:]), images, reconstructions, batch)
    return {
        "psnr": float(psnr.mean()),
        "psnr_sd": float(psnr.std()),
        "ms_ssim": float(similar.mean()),
        "ms_ssim_sd": float(similar.std()),
    }


def diversity(images: NDArray[np.floating], pairs: int, seed: int, batch: int = 16) -> float:
    """Mean MS-SSIM of random pairs of different images: high where a generator always draws the same."""
    rng = np.random.default_rng(seed)
    first = rng.integers(len(images), size=pairs)
    second = (first + rng.integers(1, len(images), size=pairs)) % len(images)
    return float(
        _batched(ms_ssim_metric(images.shape[2:]), np.asarray(images)[first], np.asarray(images)[second], batch).mean()
    )


def features(detector: Detector, images: NDArray[np.floating], batch: int = 64) -> Tensor:
    """What the copy detector's network gives before centring, ``(n, dim)``: the local features for FID and MMD.

    Args:
        images: ``(n, channels, *spatial)`` in [0, 1], brought to the detector's size here.
    """
    blocks = []
    network = detector.network.eval()
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            block = [detector.preprocessing.from_array(np.asarray(image)) for image in images[start : start + batch]]
            blocks.append(network(_tensor(np.stack(block))))
    return torch.cat(blocks)


def distribution_distances(found: Tensor, reference: Tensor) -> dict[str, float]:
    """FID and MMD (linear kernel) between two sets of features ``(n, dim)``; MMD on as many as both have.

    Both depend on the feature network and on the numbers of images: compare within one table only.
    """
    n = min(len(found), len(reference))
    return {
        "fid": float(FIDMetric()(found, reference)),
        "mmd": float(MMDMetric()(reference[:n], found[:n])),
    }
