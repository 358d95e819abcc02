# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Are the synthetic images as sharp as the held-out ones? If not, the control does not speak for them.

Blurred images of unseen patients are more often called copies than sharp ones (docs/study.md, "A control that
matters"): what tells patients apart is blurred away. The control is made of sharp images and does not show this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

MOST_IMAGES = 200
FINE = 1.0  # pixels: standard deviation of the Gaussian that takes fine detail away
BLURRED_QUANTILE = 0.05


def fine_detail(pixels: NDArray[np.floating], most: int = MOST_IMAGES) -> NDArray[np.float64]:
    """Share of each image's contrast that lies in detail finer than about two pixels.

    Args:
        pixels: ``(n, channels, *spatial)`` in [0, 1].
        most: images looked at, evenly spaced.

    Returns:
        ``(min(n, most),)``, 0 for an image of one grey value.
    """
    chosen = np.unique(np.linspace(0, len(pixels) - 1, min(most, len(pixels))).round().astype(int))
    shares = []
    for position in chosen:
        image = np.asarray(pixels[position], dtype=np.float64).mean(axis=0)
        contrast = image.std()
        shares.append(float((image - gaussian_filter(image, FINE)).std() / contrast) if contrast > 0 else 0.0)
    return np.asarray(shares)


def blur_warning(synthetic: NDArray[np.floating], heldout: NDArray[np.floating]) -> list[str]:
    """A warning if half of the synthetic images are blurrier than 95 % of the held-out ones.

    Args:
        synthetic, heldout: ``(n, channels, *spatial)`` in [0, 1], prepared alike.
    """
    ours, real = fine_detail(synthetic), fine_detail(heldout)
    if np.median(ours) >= np.quantile(real, BLURRED_QUANTILE):
        return []
    return [
        f"The synthetic images are blurred: fine detail makes up {np.median(ours):.1%} of their contrast, and "
        f"{np.median(real):.1%} of that of the held-out images. Blurred images of unseen patients are called copies "
        "more often than the control says, so that part of the excess may be blur. Look at the pairs, compare with "
        "--verification False, and audit held-out images that were blurred as strongly as if they were synthetic."
    ]
