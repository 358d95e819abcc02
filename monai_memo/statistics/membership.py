# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Can patients of the training be told from unseen ones by a score? The patient is the unit, never the image.

Reported as Carlini et al. (Membership Inference Attacks From First Principles, IEEE S&P 2022) ask for: not the mean
success alone but how many members are found while hardly any other patient is accused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from monai_memo.statistics.intervals import Interval, beta_draws, percentile_interval, proportion_interval
from monai_memo.statistics.twins import area_under_curve

Floats = NDArray[np.float64]
FALSE_POSITIVE_RATES = (0.01, 0.001)
AT_ONCE = 4_000_000  # numbers held in memory together


@dataclass(frozen=True)
class FoundAt:
    """How many members are found while few other patients are accused.

    Attributes:
        rate: false positive rate that was asked for.
        reached: that the threshold stands for, ``k / (held-out patients + 1)`` with the k-th highest held-out score:
            what to expect for one more unseen patient. Greater than ``rate`` where there are too few held-out patients.
        resolved: whether ``reached`` is as low as ``rate``.
        wanted: held-out patients that it takes.
        accused: held-out patients above the threshold.
        false_positives: their share; its upper end is what so few patients leave possible.
        found: share of the training patients above the threshold.
    """

    rate: float
    reached: float
    resolved: bool
    wanted: int
    accused: int
    false_positives: Interval
    found: Interval


@dataclass(frozen=True)
class Separation:
    """How well one score tells training patients from held-out ones.

    Attributes:
        auc: chance that a training patient scores above a held-out one; 0.5 is guessing.
        found_at: for each false positive rate.
        p_value: of an area as large, if patients had been put into the cohorts at random.
    """

    auc: Interval
    found_at: tuple[FoundAt, ...]
    p_value: float


def by_patient(scores: Floats, patients: Sequence[str]) -> tuple[Floats, list[str]]:
    """Mean over the images of each patient.

    The mean and not the greatest: the greatest of more images is greater, so that patients with many images would look
    like members.

    Args:
        scores: ``(images,)`` or ``(images, scores)``.
        patients: of each image.

    Returns:
        ``(patients,)`` or ``(patients, scores)``, and the patients in this order.

    Example:
        >>> by_patient(np.array([1.0, 3.0, 5.0]), ["b", "a", "b"])
        (array([3., 3.]), ['a', 'b'])
    """
    names, codes = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), *scores.shape[1:]))
    np.add.at(sums, codes, scores)
    counts = np.bincount(codes).reshape(-1, *(1,) * (scores.ndim - 1))
    return sums / counts, [str(name) for name in names]


def auc_interval(
    members: Floats, others: Floats, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Area under the ROC curve with its interval: the wider of a bootstrap of patients and of Newcombe's method 5.

    The bootstrap alone has no width where the cohorts are told apart completely. Newcombe (Statistics in Medicine
    2006) inverts the variance of Hanley and McNeil, as Wilson does for a proportion.

    Example:
        >>> found = auc_interval(np.arange(20.0) + 100, np.arange(20.0))
        >>> found.value, round(found.low, 2), found.high
        (1.0, 0.9, 1.0)
    """
    area = area_under_curve(members, others)
    rng = np.random.default_rng([seed, 21])
    least, resampled = len(members) * (len(members) + 1) / 2, []
    for rows in _blocks(draws, len(members) + len(others)):
        drawn = [rng.choice(one, (rows, len(one))) for one in (members, others)]
        ranks = rankdata(np.concatenate(drawn, axis=1), axis=1)[:, : len(members)]
        resampled.append((ranks.sum(axis=1) - least) / (len(members) * len(others)))
    low, high = _newcombe(area, len(members), len(others), float(norm.ppf(0.5 + confidence / 2)))
    found = percentile_interval(area, np.concatenate(resampled), confidence)
    return Interval(area, min(low, found.low), max(high, found.high))


def _blocks(rows: int, length: int) -> Iterator[int]:
    """Rows at once, until all are done."""
    size = max(1, AT_ONCE // length)
    for start in range(0, rows, size):
        yield min(size, rows - start)


def _newcombe(area: float, members: int, others: int, z: float) -> tuple[float, float]:
    mean = (members + others) / 2

    def far(candidate: float) -> float:
        spread = 1 + (mean - 1) * ((1 - candidate) / (2 - candidate) + candidate / (1 + candidate))
        return abs(candidate - area) - z * math.sqrt(candidate * (1 - candidate) * spread / (members * others))

    step = 1e-9  # away from the area itself, where a root of no width lies when it is 0 or 1
    low = 0.0 if area <= step else float(brentq(far, 0.0, area - step))
    high = 1.0 if area >= 1 - step else float(brentq(far, area + step, 1.0))
    return low, high


def found_at(
    members: Floats, others: Floats, rate: float, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> FoundAt:
    """Share of the members above the threshold that lets this share of other patients pass.

    The threshold is the k-th highest held-out score with the greatest k for which ``k / (n + 1)`` is no more than
    ``rate``; where there is none (fewer than ``1 / rate - 1`` held-out patients), the highest. A patient has to lie
    above it. The interval resamples held-out patients through the threshold, and draws the share of members from what
    their count allows.

    Example:
        >>> one = found_at(np.arange(50.0) + 30, np.arange(50.0), 0.001)
        >>> one.resolved, one.wanted, round(one.reached, 3), one.found.value
        (False, 999, 0.02, 0.6)
    """
    n = len(others)
    k = math.floor(rate * (n + 1) + 1e-9)
    kept = max(k, 1)
    threshold = np.sort(others)[n - kept]
    rng = np.random.default_rng([seed, 22])
    ordered = np.sort(rng.choice(others, (draws, n)), axis=1)
    ranked = np.sort(members)
    counts = (len(members) - np.searchsorted(ranked, ordered[:, n - kept], side="right")).astype(np.float64)
    count = int((members > threshold).sum())
    accused = int((others > threshold).sum())
    drawn = percentile_interval(count / len(members), beta_draws(counts, len(members), rng), confidence)
    exact = proportion_interval(count, len(members), confidence)
    return FoundAt(
        rate, kept / (n + 1), k >= 1, math.ceil(1 / rate - 1e-9) - 1, accused,
        proportion_interval(accused, n, confidence),
        Interval(count / len(members), min(drawn.low, exact.low), max(drawn.high, exact.high)),
    )  # fmt: skip


def permutation_p(
    members: Floats, others: Floats, permutations: int = 10_000, seed: int = 0, either_way: bool = False
) -> tuple[NDArray[np.float64], float]:
    """P-values of the areas under the curve, if patients had been put into the cohorts at random.

    Args:
        members, others: ``(patients, scores)``: all scores see the same permutations.
        either_way: the second p-value counts areas far below 0.5 as well: who knows of them turns the score round.

    Returns:
        One for each score, and one for the largest area of all scores (Westfall and Young), which allows for having
        looked at several.
    """
    both = np.concatenate([members, others])
    ranks = np.apply_along_axis(rankdata, 0, both)  # (patients, scores)
    n, m = len(members), len(others)
    least = n * (n + 1) / 2
    observed = (ranks[:n].sum(axis=0) - least) / (n * m)

    def farthest(areas: Floats) -> Floats:
        return np.asarray((abs(areas - 0.5) if either_way else areas).max(axis=-1))

    rng, above, largest = np.random.default_rng([seed, 23]), np.zeros(both.shape[1]), 0
    for size in _blocks(permutations, n + m):
        chosen = np.argsort(rng.random((size, n + m)), axis=1)[:, :n]
        marks = np.zeros((size, n + m))
        np.put_along_axis(marks, chosen, 1.0, axis=1)
        areas = (marks @ ranks - least) / (n * m)
        above += (areas >= observed - 1e-12).sum(axis=0)
        largest += int((farthest(areas) >= farthest(observed) - 1e-12).sum())
    return (above + 1) / (permutations + 1), (largest + 1) / (permutations + 1)


def separations(
    members: Mapping[str, Floats], others: Mapping[str, Floats], confidence: float = 0.95, seed: int = 0,
    permutations: int = 10_000, either_way: bool = False,
) -> tuple[dict[str, Separation], float]:  # fmt: skip
    """Each score by itself, and the p-value of the best of them.

    Args:
        members, others: ``(patients,)`` of each score, higher for what looks like a member.
        either_way: of ``permutation_p``.
    """
    names = list(members)
    p_values, best = permutation_p(
        np.stack([members[name] for name in names], axis=1), np.stack([others[name] for name in names], axis=1),
        permutations, seed, either_way,
    )  # fmt: skip
    found = {
        name: Separation(
            auc_interval(members[name], others[name], confidence, seed=seed),
            tuple(found_at(members[name], others[name], rate, confidence, seed=seed) for rate in FALSE_POSITIVE_RATES),
            float(p),
        )
        for name, p in zip(names, p_values, strict=True)
    }
    return found, float(best)


def excluded_share(n: int, confidence: float = 0.95) -> float:
    """The greatest share of copies that none among ``n`` samples leaves possible: ``1 - (1 - confidence) ** (1 / n)``.

    Exact (Clopper and Pearson). Samples that were not drawn can be copies this often.

    Example:
        >>> round(excluded_share(200), 4)
        0.0149
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, got {n}")
    return 1 - (1 - confidence) ** (1 / n)
