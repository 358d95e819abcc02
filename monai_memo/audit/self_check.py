# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The positive control: would this detector, at this threshold, find copies if there were any?

Copies of training images are planted and looked up exactly like synthetic images. Without this check a detector that
sees nothing would look like a generator that copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.parts import Estimate, Sensitivity
from monai_memo.data.planting import plant_mixture
from monai_memo.statistics.intervals import proportion_interval


def positive_control(
    similarity_of: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    training_pixels: NDArray[np.floating],
    tau: float,
    n_planted: int,
    seed: int,
    confidence: float = 0.95,
) -> Sensitivity | None:
    """Plant copies of random training images and count those found above ``tau``.

    Args:
        similarity_of: images ``(n, channels, *spatial)`` to ``(n,)`` similarities to their nearest training image, as
            the audit computes them for synthetic images.
        training_pixels: ``(n, channels, *spatial)`` in [0, 1].
        n_planted: number of copies, at most two per training image; 0 gives None.

    Returns:
        ``planted``, ``found``, ``rate`` (an ``Estimate``) and ``by_kind`` (found / planted of each kind).
    """
    if n_planted == 0:
        return None
    rng = np.random.default_rng([seed, 7])
    n_planted = min(n_planted, 2 * len(training_pixels))
    chosen = rng.permutation(np.resize(np.arange(len(training_pixels)), max(n_planted, len(training_pixels))))
    originals = np.asarray(training_pixels[np.sort(chosen[:n_planted])], dtype=np.float32)
    copies, kinds = plant_mixture(originals, seed=seed)
    found = similarity_of(copies) > tau
    interval = proportion_interval(int(found.sum()), len(found), confidence)
    kinds_array = np.asarray(kinds)
    return {
        "planted": len(found),
        "found": int(found.sum()),
        "rate": Estimate(interval.value, interval.low, interval.high),
        "by_kind": {kind: float(found[kinds_array == kind].mean()) for kind in sorted(set(kinds))},
    }
