# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds: above which similarity an image counts as a copy, or a training image as memorized.

``paper`` (Dar et al., arXiv 2402.01054, Methods): one tau, the 95th percentile over training images of the similarity
to the nearest held-out image. It serves both counts, although these take the maximum over other numbers of candidates:
with nothing memorized they come out at ``1 - 0.95 ** (n_candidates / n_heldout)`` for exchangeable pairs, not at 5 %.

``size_matched``: each count has a threshold whose null has as many candidates as the count itself.

* Copies. A synthetic image is compared with all training images, so the null is what held-out images show when they are
  compared with the same training images. No candidate is left out, hence no copy is lost, and because held-out and
  novel synthetic images are both new to the detector, it does not matter that the detector was fitted on the others.
* Memorized. A training image is compared with ``n_synthetic`` candidates. If there are more held-out images, the null
  is the maximum over subsets of ``n_synthetic`` of them, averaged over all subsets (exactly, by the hypergeometric
  weight of each rank, so that no random repeats are needed). If there are fewer, the level of the quantile is raised to
  ``0.95 ** (n_heldout / n_synthetic)``, which for exchangeable pairs is the same as having enough of them, and errs
  towards fewer than 5 % where training images differ in how close unseen patients come (Jensen's inequality).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from monai_memo.errors import CalibrationError
from monai_memo.statistics.similarities import Floats

MODES = ("size_matched", "paper")


def upper_quantile(values: Floats, weights: Floats, level: float, plotting: str = "weibull") -> Floats:
    """Weighted quantile in the upper tail, for many weightings of the same values at once.

    Args:
        values: ``(n,)`` in any order.
        weights: ``(n,)`` or ``(draws, n)``, not negative; with unit weights the result is NumPy's quantile.
        level: between 0 and 1.
        plotting: ``"linear"`` (NumPy's default, the paper's percentile) or ``"weibull"``, at which a new value exceeds
            the quantile with a probability of exactly ``1 - level`` (conformal prediction).

    Returns:
        ``(draws,)`` quantiles; the largest value where the level cannot be reached.
    """
    weights = np.atleast_2d(weights)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    results = np.empty(len(weights))
    for draw, row in enumerate(weights[:, order]):
        kept = row > 0
        cumulative = np.cumsum(row[kept])
        total = cumulative[-1]
        position = (1 - level) * (total + 1) if plotting == "weibull" else (1 - level) * (total - 1) + 1
        results[draw] = np.interp(position, cumulative, ranked[kept])
    return results


def smallest_heldout(quantile: float) -> int:
    """The fewest held-out images with which a conformal threshold at this quantile exists (19 for 0.95)."""
    return int(np.ceil(quantile / (1 - quantile) - 1e-9))


def require_heldout(n_heldout: int, quantile: float, fixed: bool = False) -> None:
    """Refuse a threshold that the held-out cohort cannot support.

    Args:
        fixed: the quantile is no option of this command.

    Raises:
        CalibrationError: fewer held-out patients than ``smallest_heldout(quantile)``.
    """
    needed = smallest_heldout(quantile)
    if n_heldout < needed:
        raise CalibrationError(
            f"{n_heldout} held-out patient{'s' if n_heldout != 1 else ''} cannot support a threshold at the "
            f"{100 * quantile:g}th percentile: at least {needed} are needed, 200 or more are recommended. "
            f"Add held-out patients{'' if fixed else ', or lower --quantile'}."
        )


def log_choose(n: Floats, r: float) -> Floats:
    """Logarithm of the binomial coefficient."""
    return np.asarray(gammaln(n + 1) - gammaln(r + 1) - gammaln(n - r + 1), dtype=np.float64)


def subset_maximum_weights(n_candidates: int, subset: int, k: int) -> Floats:
    """Probability that the j-th nearest of ``n_candidates`` is the nearest one of a random subset, for j < ``k``.

    Returns:
        ``(k,)`` weights that sum to 1 (what lies beyond rank ``k`` is added to the last one).
    """
    if not 1 <= subset <= n_candidates:
        raise ValueError(f"subset must lie between 1 and {n_candidates}, got {subset}")

    rank = np.arange(k)
    possible = n_candidates - 1 - rank >= subset - 1
    weights = np.zeros(k)
    remaining = (n_candidates - 1 - rank[possible]).astype(np.float64)
    total = log_choose(np.array([float(n_candidates)]), subset)
    weights[possible] = np.exp(log_choose(remaining, subset - 1) - total)
    weights[-1] += max(0.0, 1.0 - weights.sum())
    return weights


def memorized_level(n_heldout: int, n_synthetic: int, quantile: float) -> float:
    """Level of the size-matched quantile over training images; above ``quantile`` with fewer held-out images."""
    return float(quantile ** min(1.0, n_heldout / n_synthetic))


def threshold_paper(training_to_nearest_heldout: Floats, quantile: float = 0.95) -> float:
    """The paper's tau.

    Example:
        >>> import numpy as np
        >>> round(threshold_paper(np.linspace(0, 1, 101)), 12)
        0.95
    """
    return float(np.quantile(training_to_nearest_heldout, quantile))


def threshold_copies(heldout_to_training: Floats, weights: Floats | None = None, quantile: float = 0.95) -> Floats:
    """Size-matched tau for copies: quantile over held-out images of the similarity to the nearest training image.

    Args:
        heldout_to_training: ``(n_heldout,)``.
        weights: ``(n_heldout,)`` or ``(draws, n_heldout)`` bootstrap weights; unit weights by default.

    Returns:
        ``(draws,)`` thresholds (one for unit weights).
    """
    if weights is None:
        weights = np.ones(len(heldout_to_training))
    return upper_quantile(heldout_to_training, weights, quantile)


def threshold_memorized(
    training_to_heldout: Floats,
    n_heldout: int,
    n_synthetic: int,
    weights: Floats | None = None,
    quantile: float = 0.95,
) -> Floats:
    """Size-matched threshold for memorized training images.

    Args:
        training_to_heldout: ``(n_train, k)`` similarities to the nearest held-out images, highest first.
        n_heldout: size of the held-out cohort that the neighbours come from.
        n_synthetic: number of synthetic images, the candidates of the count.
        weights: ``(n_train,)`` or ``(draws, n_train)`` bootstrap weights; unit weights by default.

    Returns:
        ``(draws,)`` thresholds (one for unit weights).
    """
    n_train, k = training_to_heldout.shape
    weights = np.atleast_2d(np.ones(n_train) if weights is None else weights)
    level = memorized_level(n_heldout, n_synthetic, quantile)
    rank_weights = subset_maximum_weights(n_heldout, min(n_heldout, n_synthetic), k)
    ranks = np.flatnonzero(rank_weights > 1e-12)
    values = training_to_heldout[:, ranks].ravel()
    owners = np.repeat(np.arange(n_train), len(ranks))
    shares = np.tile(rank_weights[ranks], n_train)
    # Only the upper tail decides the quantile: the rest is dropped before the draws multiply the work, with a margin
    # so wide that no resampling of patients reaches it.
    order = np.argsort(-values, kind="stable")
    tail = np.cumsum(shares[order])
    largest = weights.max(initial=1.0)
    keep = int(np.searchsorted(tail, min(tail[-1], 6 * largest * ((1 - level) * n_train + 10)))) + 1
    order = order[:keep]
    values, owners, shares = values[order], owners[order], shares[order]
    results = np.empty(len(weights))
    for draw, row in enumerate(weights):
        cumulative = np.cumsum(row[owners] * shares)
        position = (1 - level) * (row.sum() + 1)
        # A flat stretch (weight zero) carries no information: interpolate over the points at which mass arrives.
        arrives = row[owners] > 0
        results[draw] = np.interp(position, cumulative[arrives], values[arrives])
    return results


def expected_floor(n_candidates: int, n_heldout: int, quantile: float = 0.95) -> float:
    """Rate that the paper's calibration reports for exchangeable pairs when nothing was memorized.

    Example:
        >>> round(expected_floor(904, 226), 3), round(expected_floor(10_000, 200), 2)
        (0.185, 0.92)
    """
    return float(1 - quantile ** (n_candidates / n_heldout))
