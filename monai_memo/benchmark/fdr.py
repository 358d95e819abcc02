# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Does the list of copies keep its false discovery rate? Simulated audits that resample real scores."""

from __future__ import annotations

import numpy as np

from monai_memo.statistics.discoveries import discover
from monai_memo.statistics.similarities import Floats


def simulated_fdr(
    positives: Floats,
    negatives: Floats,
    rate: float = 0.05,
    audits: int = 200,
    copy_share: float = 0.2,
    seed: int = 0,
) -> dict[str, float]:
    """Draw audits from measured scores: unseen patients are split into held-out and novel synthetic images.

    Args:
        positives: ``(n,)`` scores of planted copies.
        negatives: ``(m,)`` scores of unseen patients; each audit splits them anew, half and half.
        rate: false discovery rate asked for.
        copy_share: copies among the synthetic images of each audit.

    Returns:
        ``false_discovery_proportion`` with its standard error, and ``found``, the share of copies listed.
    """
    rng = np.random.default_rng(seed)
    proportions, found = [], []
    for _ in range(audits):
        shuffled = rng.permutation(negatives)
        heldout, novel = np.split(shuffled, [len(shuffled) // 2])
        n_copies = max(1, round(len(novel) * copy_share / (1 - copy_share)))
        copies = rng.choice(positives, n_copies)
        listed = discover(np.concatenate([copies, novel]), heldout, rate).listed
        proportions.append(listed[n_copies:].sum() / max(1, listed.sum()))
        found.append(listed[:n_copies].mean())
    return {
        "rate": rate,
        "audits": audits,
        "copy_share": copy_share,
        "false_discovery_proportion": float(np.mean(proportions)),
        "standard_error": float(np.std(proportions) / np.sqrt(audits)),
        "found": float(np.mean(found)),
    }
