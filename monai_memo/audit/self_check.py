# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The positive control: would this detector, at this threshold, find copies if there were any?

Copies of training images are planted and looked up exactly like synthetic images. Without this check a detector that
sees nothing would look like a generator that copies nothing. Where that is possible the copies are written as files
like the synthetic ones and read back, so that the check fails where reading fails.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from monai_memo.audit.parts import Estimate, Sensitivity
from monai_memo.data.planted_files import ReadBack
from monai_memo.data.planting import plant_mixture
from monai_memo.statistics.intervals import proportion_interval


def positive_control(
    similarity_of: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    training_pixels: NDArray[np.floating],
    tau: float,
    n_planted: int,
    seed: int,
    confidence: float = 0.95,
    through: Callable[[NDArray[np.float32]], ReadBack] | None = None,
) -> Sensitivity | None:
    """Plant copies of random training images and count those found above ``tau``.

    Args:
        similarity_of: images ``(n, channels, *spatial)`` to ``(n,)`` similarities to their nearest training image, as
            the audit computes them for synthetic images.
        training_pixels: ``(n, channels, *spatial)`` in [0, 1].
        n_planted: number of copies, at most two per training image; 0 gives None.
        through: writes the copies as files and reads them back; those that cannot be read count as not found.

    Returns:
        ``planted``, ``found``, ``rate`` (an ``Estimate``), ``by_kind`` (found / planted of each kind), ``planted_as``
        (the files that they were written as, or ``"arrays"``) and ``unreadable`` (could not be read back, and why).
    """
    if n_planted == 0:
        return None
    rng = np.random.default_rng([seed, 7])
    n_planted = min(n_planted, 2 * len(training_pixels))
    chosen = rng.permutation(np.resize(np.arange(len(training_pixels)), max(n_planted, len(training_pixels))))
    originals = np.asarray(training_pixels[np.sort(chosen[:n_planted])], dtype=np.float32)
    copies, kinds = plant_mixture(originals, seed=seed)
    read = None if through is None else through(copies)
    found = similarity_of(copies if read is None else read.pixels) > tau
    if read is not None:
        found &= read.readable
    interval = proportion_interval(int(found.sum()), len(found), confidence)
    kinds_array = np.asarray(kinds)
    return {
        "planted": len(found),
        "found": int(found.sum()),
        "rate": Estimate(interval.value, interval.low, interval.high),
        "by_kind": {kind: float(found[kinds_array == kind].mean()) for kind in sorted(set(kinds))},
        "planted_as": "arrays" if read is None else read.description,
        "unreadable": [] if read is None else list(read.unreadable),
    }
