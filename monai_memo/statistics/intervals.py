# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Intervals: resampling of patients, and small counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, norm

from monai_memo.statistics.similarities import Floats, Integers


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float


def patient_weights(patients: Integers, draws: int, rng: np.random.Generator) -> Floats:
    """Bootstrap over patients: how often each image is drawn when its patient is drawn with replacement.

    Args:
        patients: ``(n,)`` code of the patient of each image. All images of a patient come and go together.
        draws: number of resamples.

    Returns:
        ``(draws, n)`` weights. Their sum varies when patients have different numbers of images.
    """
    codes, inverse = np.unique(patients, return_inverse=True)
    counts = rng.multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=draws)
    return counts[:, inverse].astype(np.float64)


def percentile_interval(value: float, draws: Floats, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval; it always holds the value itself."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


def proportion_interval(count: float, total: int, confidence: float = 0.95) -> Interval:
    """Jeffreys interval of a proportion, never narrower than the rule of three at 0 or ``total``.

    Source: Brown, Cai, DasGupta, Statistical Science 2001; rule of three: Hanley, Lippman-Hand, JAMA 1983.

    Example:
        >>> interval = proportion_interval(0, 100)
        >>> interval.value, interval.low, round(interval.high, 2)
        (0.0, 0.0, 0.03)
    """
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"count must lie between 0 and total > 0, got {count} of {total}")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count + 0.5, total - count + 0.5))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 0.5, total - count + 0.5))
    three = min(1.0, float(-np.log(1 - confidence)) / total)
    if count == 0:
        high = max(high, three)
    if count == total:
        low = min(low, 1 - three)
    return Interval(count / total, low, high)


def beta_draws(counts: Floats, total: int, rng: np.random.Generator) -> Floats:
    """Draw the rate behind each count from its Jeffreys posterior.

    Used where a threshold is resampled as well: unlike a second resampling it stays honest at counts of zero.
    """
    return rng.beta(counts + 0.5, total - counts + 0.5)


def shared_neighbour_variance(similarity: Floats, neighbours: Integers, threshold: float, n_candidates: int) -> float:
    """Variance of the rate above a threshold that comes from candidates shared by several queries.

    Resampling the queries leaves out that one candidate can lift many of them above the threshold together. Two-way
    clustering (Cameron, Gelbach, Miller, JBES 2011) adds their covariance. Only queries that a single candidate lifts
    are counted: the others would stay above without it.

    Args:
        similarity: ``(n, k)`` of each query to its nearest candidates, highest first.
        neighbours: ``(n, k)``, which candidates these are.
        threshold: above which a query is counted.
        n_candidates: number of candidates searched.

    Returns:
        Variance, in squared units of the rate; 0 where candidates are shared less than by chance.
    """
    single = similarity[:, 0] > threshold
    if similarity.shape[1] > 1:
        single &= similarity[:, 1] <= threshold
    lifted = np.bincount(neighbours[single, 0], minlength=n_candidates).astype(np.float64)
    covariance = (lifted * (lifted - 1)).sum() - lifted.sum() ** 2 / n_candidates
    return float(max(0.0, covariance) / len(similarity) ** 2)


def widened(draws: Floats, centre: float, factor: float) -> Floats:
    """Draws stretched about ``centre``."""
    return centre + factor * (draws - centre)


def wilson_interval(count: float, total: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion. ``count`` and ``total`` need not be whole (effective sample sizes).

    Source: Wilson, JASA 1927; recommended by Brown, Cai, DasGupta, Statistical Science 2001.

    Example:
        >>> interval = wilson_interval(8, 10)
        >>> round(interval.low, 3), round(interval.high, 3)
        (0.49, 0.943)
    """
    if not 0 <= count <= total or total <= 0:
        raise ValueError(f"count must lie between 0 and total > 0, got {count} of {total}")
    z = float(norm.ppf(0.5 + confidence / 2))
    rate = count / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    low = 0.0 if count == 0 else max(0.0, float(centre - half))
    high = 1.0 if count == total else min(1.0, float(centre + half))
    return Interval(rate, low, high)
