# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""How many copies can be left after those that were found have been removed: an upper bound, not an estimate.

Of C copies among the images, each lies above the threshold with the probability p (sensitivity), whichever images the
others are. K of them were above it and went, M = C - K are left. Given K, M is no larger than the number of failures
before success K + 1 in trials that succeed with p: a negative binomial quantile bounds it. Two numbers are not known:

* K. It is at most the number of images that were removed, so this number is taken: the bound holds whatever share of
  them were chance matches, and asks nothing of the control.
* p. Its Clopper-Pearson lower bound from planted copies is taken.

Each of the two steps spends half of what the confidence leaves. The assumption that carries everything: the
generator's copies are found as often as the planted ones were. Kinds of copies that were not planted are not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta, binom, nbinom


@dataclass(frozen=True)
class Remainder:
    """What can be left below a threshold.

    Attributes:
        threshold: images above it were removed.
        copies: upper bound of the copies at or below it.
    """

    threshold: float
    copies: int


def sensitivity_at_least(found: int, planted: int, level: float = 0.025) -> float:
    """Lower bound of a detector's sensitivity (Clopper and Pearson, Biometrika 1934), one-sided.

    Args:
        found: of the planted copies.
        planted: copies.
        level: chance that the bound is too high, at most.

    Example:
        >>> round(sensitivity_at_least(95, 100), 3), sensitivity_at_least(0, 100)
        (0.887, 0.0)
    """
    if not 0 <= found <= planted or planted < 1:
        raise ValueError(f"found must lie between 0 and planted > 0, got {found} of {planted}")
    return 0.0 if found == 0 else float(beta.ppf(level, found, planted - found + 1))


def copies_left(removed: int, found: int, planted: int, confidence: float = 0.95) -> int | None:
    """Upper bound of the copies left below the threshold.

    ``isf(a / 2)`` of the negative binomial distribution with ``removed + 1`` successes and the success probability
    ``sensitivity_at_least(found, planted, a / 2)``, where ``a = 1 - confidence``. See the module for why.

    Args:
        removed: images above the threshold, copies or not.
        found: planted copies above the threshold.
        planted: copies that were planted.
        confidence: of the bound.

    Returns:
        None where no planted copy was found: nothing is known then.

    Example:
        >>> copies_left(removed=45, found=95, planted=100), copies_left(removed=0, found=95, planted=100)
        (11, 1)
    """
    level = (1 - confidence) / 2
    sensitivity = sensitivity_at_least(found, planted, level)
    return None if sensitivity == 0 else int(nbinom.isf(level, removed + 1, sensitivity))


def lowered_thresholds(
    removed: int,
    planted_above: int,
    planted: Sequence[float],
    thresholds: Sequence[float],
    confidence: float = 0.95,
) -> list[Remainder]:
    """Upper bounds of the copies left at several lower thresholds, all of which hold together.

    The copies in all are bounded once, at the threshold of the audit (``removed`` and ``planted_above`` are those
    above it), since further down chance matches would be counted. Of so many copies, those that stay below a lower
    threshold are binomial. What the confidence leaves is split in four: the sensitivities at both thresholds, and both
    counts; that of a lower threshold is split again over all thresholds, so that one may be chosen by its bound.

    Args:
        planted: similarity of each planted copy.
        thresholds: at most that of the audit.

    Returns:
        One for each threshold; empty where no planted copy was found.
    """
    level = (1 - confidence) / 4
    sensitivity = sensitivity_at_least(planted_above, len(planted), level)
    if sensitivity == 0:
        return []
    copies = removed + int(nbinom.isf(level, removed + 1, sensitivity))
    found = []
    for threshold in thresholds:
        above = sum(value > threshold for value in planted)
        lower = sensitivity_at_least(above, len(planted), level / len(thresholds))
        found.append(Remainder(float(threshold), int(binom.isf(level / len(thresholds), copies, 1 - lower))))
    return found
