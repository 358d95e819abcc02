# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""A threshold for pairs that stand out, from similarities among which some already do.

Images of a cohort are looked up among those of other patients. Most have no duplicate there; some do, and nobody knows
which. A plain quantile would be pushed up by them. So those that lie far outside of what the lower half of all images
shows are left out first, and the quantile is taken of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_memo.statistics.similarities import Floats

FAR = 6.0  # spreads above the middle
FEWEST = 20  # images
LARGEST = 1 - 1e-6


@dataclass(frozen=True)
class Outstanding:
    """A threshold and where it comes from.

    Attributes:
        threshold: similarities above it stand out.
        images: that it was taken from.
        left_out: that lay too far outside to be taken for ordinary.
    """

    threshold: float
    images: int
    left_out: int


def outstanding_threshold(similarity: Floats, quantile: float = 0.99) -> Outstanding | None:
    """The similarity that this share of ordinary images stays below.

    On Fisher's scale (the inverse hyperbolic tangent), the spread is the way from the 16th percentile to the median,
    which duplicates do not change while they are fewer than half.

    Args:
        similarity: ``(n,)`` of each image to the nearest one that can be no duplicate by what is known.
        quantile: share of ordinary images that stay below.

    Returns:
        None with fewer than 20 images.

    Example:
        >>> ordinary = np.tanh(np.random.default_rng(0).normal(0.8, 0.1, 400))
        >>> plain = outstanding_threshold(ordinary)
        >>> mixed = outstanding_threshold(np.concatenate([ordinary, np.full(100, 0.999)]))
        >>> mixed.left_out, abs(mixed.threshold - plain.threshold) < 0.02
        (100, True)
    """
    values = np.arctanh(np.clip(similarity, -LARGEST, LARGEST))
    if len(values) < FEWEST:
        return None
    middle, low = np.quantile(values, [0.5, 0.16])
    ordinary = values[values <= middle + FAR * max(middle - low, 1e-9)]
    rank = min(len(ordinary) - 1, int(np.ceil(quantile * (len(ordinary) + 1))) - 1)
    threshold = float(np.tanh(np.sort(ordinary)[rank]))
    return Outstanding(threshold, len(ordinary), len(values) - len(ordinary))
