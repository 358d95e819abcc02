# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""The control: what the audit reports when held-out real images pose as synthetic, so that nothing was memorized.

Held-out patients are split. One part plays the held-out cohort, the other the synthetic one. The excess of the audit
over its control is what memorization can explain. (The design follows Anonymeter's control attack, Giomi et al. 2023.)
"""

from __future__ import annotations

import numpy as np

from monai_memo.statistics.calibration import threshold_copies, threshold_memorized, threshold_paper
from monai_memo.statistics.similarities import Floats, Integers, Similarities

SMALLEST_PART = 10


def _folds(patients: Integers, folds: int, rng: np.random.Generator) -> Integers:
    """Assign a fold to each image so that the images of a patient stay together."""
    codes, inverse = np.unique(patients, return_inverse=True)
    assignment = rng.permutation(np.arange(len(codes)) % folds)
    return assignment[inverse]


def _restricted(sims: Similarities, mask: np.ndarray) -> Floats:
    """Nearest held-out similarities, highest first, when only the held-out images in ``mask`` exist.

    Where a list of nearest neighbours runs out, the last known similarity stands in: an upper bound, which makes the
    threshold a little higher. ``neighbours_needed`` makes the lists long enough for this to be rare.
    """
    kept = mask[sims.heldout_neighbours]
    floor = sims.training_to_heldout[:, -1:]
    values = np.where(kept, sims.training_to_heldout, -np.inf)
    values = -np.sort(-values, axis=1)
    width = int(min(mask.sum(), values.shape[1]))
    return np.where(np.isfinite(values), values, floor)[:, :width]


def control_copies(
    sims: Similarities, mode: str, quantile: float, rng: np.random.Generator, folds: int = 10
) -> np.ndarray:
    """Which held-out images would be called copies, each judged by a threshold from other patients.

    Returns:
        ``(n_heldout,)`` booleans.
    """
    folds = min(folds, len(np.unique(sims.heldout_patients)))
    assignment = _folds(sims.heldout_patients, folds, rng)
    called = np.zeros(sims.n_heldout, dtype=bool)
    for fold in range(folds):
        inside = assignment == fold
        if mode == "paper":
            # With a fold taken out there are fewer candidates; the level is lowered accordingly, or the control would
            # show a higher floor than the audit has.
            level = quantile ** (np.count_nonzero(~inside) / sims.n_heldout)
            tau = threshold_paper(_restricted(sims, ~inside)[:, 0], level)
        else:
            tau = float(threshold_copies(sims.heldout_to_training[~inside], quantile=quantile)[0])
        called[inside] = sims.heldout_to_training[inside] > tau
    return called


def control_memorized(
    sims: Similarities, mode: str, quantile: float, rng: np.random.Generator, repeats: int = 20
) -> Floats | None:
    """How often each training image is called memorized when held-out patients pose as synthetic.

    The held-out patients are split at random at the ratio of synthetic to held-out images of the audit, ``repeats``
    times.

    Returns:
        ``(n_train,)`` shares of the repeats, or None if a part would have fewer than ten images.
    """
    share = sims.n_synthetic / (sims.n_synthetic + sims.n_heldout)
    codes, inverse = np.unique(sims.heldout_patients, return_inverse=True)
    posing_patients = round(share * len(codes))
    if min(share, 1 - share) * sims.n_heldout < SMALLEST_PART or posing_patients in (0, len(codes)):
        return None
    called = np.zeros(sims.n_train)
    for _ in range(repeats):
        chosen = np.zeros(len(codes), dtype=bool)
        chosen[rng.permutation(len(codes))[:posing_patients]] = True
        posing = chosen[inverse]
        reference = _restricted(sims, ~posing)
        if mode == "paper":
            tau = threshold_paper(reference[:, 0], quantile)
        else:
            n_reference, n_posing = int((~posing).sum()), int(posing.sum())
            tau = float(threshold_memorized(reference, n_reference, n_posing, quantile=quantile)[0])
        called += _restricted(sims, posing)[:, 0] > tau
    return called / repeats
