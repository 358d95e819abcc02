# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How many training images will be copied if more synthetic images are drawn?

Copies are sightings of training images, as animals are sightings of species. The curve up to the images at hand is the
expected number of distinct training images copied by a random subset of them (rarefaction: Hurlbert, Ecology 1971); it
is carried on with the estimate of those not yet seen from the ones seen once and twice (Chao, Scandinavian Journal of
Statistics 1984; Colwell et al., Journal of Plant Ecology 2012). Its limit is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_memo.statistics.calibration import log_choose
from monai_memo.statistics.similarities import Floats, Integers

EXTRAPOLATED = 3.0  # times the number of images at hand; further out the estimate is known to be poor


@dataclass(frozen=True)
class SamplingCurve:
    """Distinct training images copied, over the number of synthetic images drawn.

    Attributes:
        drawn: ``(points,)`` numbers of synthetic images, some beyond those at hand.
        copied: ``(points,)`` expected distinct training images copied.
        low, high: ``(points,)`` ends of the interval (bootstrap over synthetic images).
        n_synthetic: images at hand.
        seen, once, twice: training images copied at all, by one and by two synthetic images.
        limit: lower bound of the number that would be copied in the end.
    """

    drawn: Integers
    copied: Floats
    low: Floats
    high: Floats
    n_synthetic: int
    seen: int
    once: int
    twice: int
    limit: float


def unseen(counts: Integers, n_synthetic: int) -> float:
    """Chao's lower bound of training images that are copied but not among the images at hand (bias-corrected form).

    Args:
        counts: ``(copied,)`` synthetic copies of each training image that has any.
    """
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    factor = (n_synthetic - 1) / n_synthetic
    return factor * (once**2 / (2 * twice) if twice else once * (once - 1) / 2)


def expected_copied(counts: Integers, n_synthetic: int, drawn: Integers, most: float = np.inf) -> Floats:
    """Expected distinct training images copied by ``drawn`` synthetic images.

    Args:
        counts: ``(copied,)`` synthetic copies of each training image that has any.
        n_synthetic: images at hand, copies or not.
        drawn: ``(points,)``; interpolated up to ``n_synthetic``, extrapolated beyond.
        most: number of training images; the curve cannot rise above it.

    Example:
        >>> import numpy as np
        >>> expected_copied(np.array([2, 1, 1]), 10, np.array([0, 10])).tolist()
        [0.0, 3.0]
    """
    result = np.empty(len(drawn))
    missing, once = unseen(counts, n_synthetic), int((counts == 1).sum())

    for position, m in enumerate(np.asarray(drawn, dtype=np.float64)):
        if m <= n_synthetic:
            left_out = np.zeros(len(counts))
            possible = n_synthetic - counts >= m
            rest = (n_synthetic - counts[possible]).astype(np.float64)
            left_out[possible] = np.exp(log_choose(rest, m) - log_choose(np.array([float(n_synthetic)]), m))
            result[position] = len(counts) - left_out.sum()
        elif missing > 0:
            share = once / (n_synthetic * missing + once)
            result[position] = len(counts) + missing * (1 - (1 - share) ** (m - n_synthetic))
        else:
            result[position] = len(counts)
    return np.minimum(result, most)


def sampling_curve(
    copied_from: Integers, n_synthetic: int, n_train: int, confidence: float = 0.95, draws: int = 200, seed: int = 0
) -> SamplingCurve:
    """The curve with its extrapolation to three times the images at hand.

    Args:
        copied_from: ``(n_copies,)`` training image that each copy copies.
        n_synthetic: synthetic images at hand, copies or not.
        n_train: training images.
        confidence: of the interval.
        draws: bootstrap resamples of synthetic images.
        seed: of the bootstrap.
    """
    if n_synthetic < 1:
        raise ValueError("a sampling curve needs at least one synthetic image")
    at_hand = np.unique(np.linspace(0, n_synthetic, 11).round().astype(np.int64))
    beyond = np.unique(np.linspace(n_synthetic, EXTRAPOLATED * n_synthetic, 11).round().astype(np.int64))
    points = np.union1d(at_hand, beyond)

    def counts_of(values: Integers) -> Integers:
        return np.unique(values, return_counts=True)[1].astype(np.int64)

    counts = counts_of(copied_from)
    curve = expected_copied(counts, n_synthetic, points, n_train)
    rng = np.random.default_rng(seed)
    everything = np.concatenate([copied_from, np.full(n_synthetic - len(copied_from), -1)])
    resampled = np.empty((draws, len(points)))
    for draw in range(draws):
        chosen = everything[rng.integers(0, n_synthetic, n_synthetic)]
        resampled[draw] = expected_copied(counts_of(chosen[chosen >= 0]), n_synthetic, points, n_train)
    # Resampling repeats images and so loses distinct ones: its spread is used, about the curve itself.
    spread = resampled - resampled.mean(axis=0)
    tail = (1 - confidence) / 2
    low, high = np.quantile(spread, [tail, 1 - tail], axis=0)
    return SamplingCurve(
        drawn=points,
        copied=curve,
        low=np.clip(curve + low, 0, curve),
        high=np.clip(curve + high, curve, n_train),
        n_synthetic=n_synthetic,
        seen=len(counts),
        once=int((counts == 1).sum()),
        twice=int((counts == 2).sum()),
        limit=float(min(n_train, len(counts) + unseen(counts, n_synthetic))),
    )
