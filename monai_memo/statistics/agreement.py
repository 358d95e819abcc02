# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Agreement between raters beyond chance, weighted back to the pairs that a sample stands for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import cohen_kappa_score

from monai_memo.statistics.intervals import Interval, percentile_interval
from monai_memo.statistics.similarities import Floats, Integers


def cohen_kappa(first: Integers, second: Integers, weights: Floats | None = None) -> float:
    """Cohen's kappa of two raters; NaN where both always give the same one rating.

    Args:
        first, second: ``(n,)`` category that each rater gave.
        weights: ``(n,)`` how many pairs each stands for.

    Source: Cohen, Educational and Psychological Measurement 1960.

    Example:
        >>> import numpy as np
        >>> round(cohen_kappa(np.repeat([0, 0, 1, 1], [20, 5, 10, 15]), np.repeat([0, 1, 0, 1], [20, 5, 10, 15])), 2)
        0.4
    """
    if len(np.union1d(first, second)) < 2:
        return float("nan")
    return float(cohen_kappa_score(first, second, sample_weight=weights))


def fleiss_kappa(counts: Integers, weights: Floats | None = None) -> float:
    """Fleiss' kappa of several raters; NaN where all ratings are the same.

    Args:
        counts: ``(n, categories)`` how many raters put each pair into each category; every pair has two raters or
            more, not necessarily as many as the others.
        weights: ``(n,)`` how many pairs each stands for.

    Raises:
        ValueError: a pair with fewer than two ratings.

    Source: Fleiss, Psychological Bulletin 1971; with unequal numbers of raters as in Fleiss and Cuzick, 1979.

    Example:
        >>> import numpy as np
        >>> fleiss_kappa(np.array([[3, 0], [0, 3]]))
        1.0
    """
    counts = np.asarray(counts, dtype=np.float64)
    raters = counts.sum(axis=1)
    if (raters < 2).any():
        raise ValueError("every pair needs at least two ratings")
    share = np.ones(len(counts)) if weights is None else np.asarray(weights, dtype=np.float64)
    share = share / share.sum()
    agreement = float(share @ ((counts * (counts - 1)).sum(axis=1) / (raters * (raters - 1))))
    chance = float(((share @ (counts / raters[:, None])) ** 2).sum())
    return float("nan") if chance >= 1 - 1e-12 else (agreement - chance) / (1 - chance)


def stratified_bootstrap(
    statistic: Callable[[Integers], float],
    strata: Integers,
    confidence: float = 0.95,
    draws: int = 500,
    seed: int = 0,
) -> Interval | None:
    """Percentile interval from pairs drawn anew within each stratum.

    Args:
        statistic: of the pairs at these positions; draws that give NaN are left out.
        strata: ``(n,)`` stratum of each pair.

    Returns:
        None where the statistic is undefined, or in more than half of the draws.
    """
    positions = np.arange(len(strata))
    value = statistic(positions)
    if not np.isfinite(value):
        return None
    rng = np.random.default_rng(seed)
    members = [positions[strata == h] for h in np.unique(strata)]
    found = np.array(
        [statistic(np.concatenate([rng.choice(group, len(group)) for group in members])) for _ in range(draws)]
    )
    found = found[np.isfinite(found)]
    return percentile_interval(value, found, confidence) if len(found) > draws / 2 else None
