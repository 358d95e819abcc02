# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Reader studies: which pairs are shown to raters, and what their ratings say about the detector.

Pairs are drawn at random within strata of the similarity, so that every pair has a known chance of being shown and
rates can be weighted back to all synthetic images. The threshold tau is a border between strata: within a stratum the
detector calls all pairs copies, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from monai_memo.statistics.intervals import Interval, wilson_interval
from monai_memo.statistics.similarities import Floats, Integers


def score_strata(score: Floats, threshold: float, per_side: int = 4, smallest: int = 4) -> Integers:
    """Cut the range of the score into strata of equal width, apart on each side of the threshold.

    Equal width, not equal numbers: pairs close below the threshold are few, and are where copies are missed.

    Args:
        score: ``(n,)`` similarity of each pair.
        threshold: pairs with a score above it are called copies.
        per_side: strata below the threshold, and above.
        smallest: a stratum with fewer pairs is merged with its neighbour on the same side.

    Returns:
        ``(n,)`` number of the stratum of each pair, rising with the score, without gaps.

    Example:
        >>> import numpy as np
        >>> score_strata(np.array([0.1, 0.15, 0.4, 0.45, 0.6, 0.9]), 0.5, per_side=2, smallest=2).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    score = np.asarray(score, dtype=np.float64)
    strata = np.zeros(len(score), dtype=np.int64)
    used = 0
    for side in (score <= threshold, score > threshold):
        if not side.any():
            continue
        inside = score[side]
        edges = np.linspace(inside.min(), inside.max(), per_side + 1)[1:-1]
        codes = np.searchsorted(edges, inside, side="right")
        sizes = [int((codes == code).sum()) for code in range(per_side)]
        groups = _merged(sizes, smallest)
        strata[side] = used + np.asarray(groups)[codes]
        used += max(groups) + 1
    return strata


def _merged(sizes: Sequence[int], smallest: int) -> list[int]:
    """Group of each bin, so that every group has ``smallest`` members if all together have."""
    groups: list[int] = []
    current, members = 0, 0
    for position, size in enumerate(sizes):
        groups.append(current)
        members += size
        if members >= smallest and sum(sizes[position + 1 :]) >= smallest:
            current, members = current + 1, 0
    return groups


def allocate(sizes: Sequence[int], n: int) -> list[int]:
    """Share ``n`` draws equally among strata; what a small stratum cannot take goes to the others.

    Example:
        >>> allocate([100, 3, 50], 30)
        [14, 3, 13]
    """
    taken = [0] * len(sizes)
    left = min(n, sum(sizes))
    while left:
        room = [h for h, size in enumerate(sizes) if taken[h] < size]
        share = max(1, left // len(room))
        for h in room:
            more = min(share, sizes[h] - taken[h], left)
            taken[h] += more
            left -= more
    return taken


def draw_sample(strata: Integers, n: int, rng: np.random.Generator) -> tuple[Integers, Floats]:
    """Simple random sampling within strata.

    Args:
        strata: ``(N,)`` stratum of each pair, from 0 without gaps.
        n: pairs to draw; all if there are fewer.

    Returns:
        ``(n,)`` positions of the drawn pairs in random order, and the inclusion probability of each.
    """
    sizes = np.bincount(strata)
    drawn = allocate(sizes.tolist(), n)
    chosen = [rng.permutation(np.flatnonzero(strata == h))[:number] for h, number in enumerate(drawn)]
    positions = rng.permutation(np.concatenate(chosen)).astype(np.int64)
    probability = np.asarray(drawn, dtype=np.float64) / sizes
    return positions, probability[strata[positions]]


@dataclass(frozen=True)
class DetectionRates:
    """What ratings say about the detector, over all synthetic images. None where nothing can be said.

    Attributes:
        sensitivity: of the pairs that raters call copies, the share that the detector calls copies.
        specificity: of the pairs that raters call no copies, the share that the detector does not call copies.
        precision: of the pairs that the detector calls copies, the share that raters call copies.
        prevalence: share of all pairs that raters call copies.
    """

    sensitivity: Interval | None
    specificity: Interval | None
    precision: Interval | None
    prevalence: Interval | None


@dataclass(frozen=True)
class _Strata:
    """Rated strata: sizes, rate of positives with the ends of its Wilson interval, and the detector's call."""

    size: Floats
    rate: Floats
    low: Floats
    high: Floats
    above: NDArray[np.bool_]
    z: float

    def side(self, above: bool) -> _Strata:
        """The strata that the detector calls copies, or the others."""
        keep = self.above == above
        return _Strata(self.size[keep], self.rate[keep], self.low[keep], self.high[keep], self.above[keep], self.z)

    def inverse(self) -> _Strata:
        """The same for the rate of negatives."""
        return _Strata(self.size, 1 - self.rate, 1 - self.high, 1 - self.low, self.above, self.z)


def _bounds(coefficient: Floats, strata: _Strata) -> tuple[float, float]:
    """Interval of ``sum(coefficient * size * rate)`` from the intervals of the rates.

    MOVER: Zou, Huang, Zhang, Computational Statistics and Data Analysis 2009; with Wilson intervals of strata it is
    that of Yan and Su, Statistics in Biopharmaceutical Research 2010, for fixed weights. Further images would also
    spread differently over the strata: that multinomial variance is added.
    """
    n = strata.size.sum()
    share, parts = strata.size / n, coefficient * strata.rate
    between = strata.z**2 * n * max(0.0, float(share @ parts**2 - (share @ parts) ** 2))
    coefficient = coefficient * strata.size
    value = float(coefficient @ strata.rate)
    ends = np.stack([coefficient * strata.low, coefficient * strata.high])
    down = coefficient * strata.rate - ends.min(axis=0)
    up = ends.max(axis=0) - coefficient * strata.rate
    return value - float(np.sqrt((down**2).sum() + between)), value + float(np.sqrt((up**2).sum() + between))


def _share(numerator: Floats, denominator: Floats, strata: _Strata) -> Interval | None:
    """``sum(numerator * size * rate) / sum(denominator * size * rate)`` and the shares that their difference allows."""
    total = float(denominator @ (strata.size * strata.rate))
    if total <= 0:
        return None
    value = float(numerator @ (strata.size * strata.rate)) / total

    def bound(share: float, end: int) -> float:
        return _bounds(numerator - share * denominator, strata)[end]

    low = 0.0 if bound(0.0, 0) <= 0 else float(brentq(bound, 0.0, value, args=(0,)))
    high = 1.0 if bound(1.0, 1) >= 0 else float(brentq(bound, value, 1.0, args=(1,)))
    return Interval(value, min(low, value), max(high, value))


def _gather(sizes: Floats, above: NDArray[np.bool_], rated: Floats, positive: Floats, confidence: float) -> _Strata:
    """Strata without ratings join the nearest one on the same side; a side without any rating is left out."""
    groups: list[list[float]] = []
    sides: list[bool] = []
    for side in (False, True):
        members: list[list[float]] = []
        waiting = 0.0
        for h in np.flatnonzero(above == side):
            if rated[h] == 0:
                if members:
                    members[-1][0] += sizes[h]
                else:
                    waiting += sizes[h]
                continue
            members.append([sizes[h] + waiting, rated[h], positive[h]])
            waiting = 0.0
        groups += members
        sides += [side] * len(members)
    intervals = [wilson_interval(group[2], group[1], confidence) for group in groups]
    return _Strata(
        np.array([group[0] for group in groups]),
        np.array([interval.value for interval in intervals]),
        np.array([interval.low for interval in intervals]),
        np.array([interval.high for interval in intervals]),
        np.array(sides, dtype=bool),
        float(norm.ppf(0.5 + confidence / 2)),
    )


def detection_rates(
    sizes: Integers,
    above: NDArray[np.bool_],
    rated: Integers,
    positive: Integers,
    confidence: float = 0.95,
) -> DetectionRates:
    """Sensitivity, specificity, precision and prevalence, weighted back to all pairs.

    Each stratum counts with its size (Horvitz and Thompson's estimate, poststratified where some drawn pairs have no
    rating). Intervals combine the Wilson interval of each stratum (MOVER): unlike an effective sample size they stay
    honest where no copy was seen in a large stratum of which few pairs were rated. They hold for further synthetic
    images of the same generator (no finite population correction).

    Args:
        sizes: ``(H,)`` pairs in each stratum, rated or not.
        above: ``(H,)`` whether the detector calls the stratum's pairs copies.
        rated: ``(H,)`` pairs with a decisive rating.
        positive: ``(H,)`` of these, pairs rated as copies.

    Raises:
        ValueError: counts that cannot be.
    """
    above = np.asarray(above, dtype=bool)
    if (positive > rated).any() or (rated > sizes).any() or (positive < 0).any():
        raise ValueError("each stratum needs 0 <= positive <= rated <= size")
    strata = _gather(sizes.astype(np.float64), above, rated.astype(np.float64), positive.astype(np.float64), confidence)
    whole = all((strata.above == side).any() or not (above == side).any() for side in (True, False))
    complete = whole and len(strata.size) > 0
    everything, called = np.ones(len(strata.size)), strata.above.astype(np.float64)
    return DetectionRates(
        sensitivity=_share(called, everything, strata) if complete else None,
        specificity=_share(everything - called, everything, strata.inverse()) if complete else None,
        precision=_mean(strata.side(True)),
        prevalence=_mean(strata) if complete else None,
    )


def _mean(strata: _Strata) -> Interval | None:
    """Rate over all these strata."""
    if len(strata.size) == 0:
        return None
    low, high = _bounds(np.full(len(strata.size), 1 / strata.size.sum()), strata)
    value = float(strata.size @ strata.rate / strata.size.sum())
    return Interval(value, max(0.0, low), min(1.0, high))
