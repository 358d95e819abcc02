# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies by group (class of a condition, say), at the threshold of the whole audit.

Rare classes can be copied more than others while the rate of all samples hides it. With many groups some rate is high
by chance: each group has an interval that holds for all groups together, and one test asks whether they differ at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.statistics.intervals import Interval, proportion_interval

FEW = 20  # samples or held-out images of a group below which its rate says little
DRAWS = 10_000


@dataclass(frozen=True)
class GroupRate:
    """One group.

    Attributes:
        name: of the group.
        n_synthetic, n_copies: its samples, and those above tau; ``copies`` their rate.
        together: interval of the same rate that holds for all groups at once (Bonferroni).
        n_train, n_patients, n_memorized: its training images, their patients, and memorized images; ``memorized`` their
            rate, None without training images.
        n_heldout: its held-out images; ``control`` the share of them above tau, None where there are none.
    """

    name: str
    n_synthetic: int
    n_copies: int
    copies: Interval
    together: Interval
    n_train: int
    n_patients: int
    n_memorized: int
    memorized: Interval | None
    n_heldout: int
    control: Interval | None


@dataclass(frozen=True)
class GroupRates:
    """All groups, rarest in the training cohort first.

    Attributes:
        groups: of them.
        p_value: of equal rates of copies in all groups; None with one group or without copies (or with copies alone).
    """

    groups: tuple[GroupRate, ...]
    p_value: float | None


def group_rates(
    synthetic: Sequence[str],
    copied: NDArray[np.bool_],
    training: Sequence[str],
    memorized: NDArray[np.bool_],
    patients: Sequence[object],
    heldout: tuple[Sequence[str], NDArray[np.bool_]] | None = None,
    confidence: float = 0.95,
) -> GroupRates:
    """Rates of each group that has samples.

    Args:
        synthetic, training: group of each image.
        copied, memorized: whether it is above its threshold.
        patients: of each training image.
        heldout: group of each held-out image, and whether it is above tau.
        confidence: of the intervals.

    Example:
        >>> called = np.array([True, True, False, False, False])
        >>> found = group_rates("aabbb", called, "abb", np.array([True, False, False]), [1, 2, 3])
        >>> [(group.name, group.n_copies, group.n_synthetic, group.n_train) for group in found.groups]
        [('a', 2, 2, 1), ('b', 0, 3, 2)]
    """
    names = sorted(set(synthetic))
    sizes = {name: list(training).count(name) for name in names}
    every = 1 - (1 - confidence) / max(1, len(names))
    of_synthetic, of_training = np.asarray(list(synthetic)), np.asarray(list(training))
    of_heldout = None if heldout is None else np.asarray(list(heldout[0]))
    groups = []
    for name in sorted(names, key=lambda name: (sizes[name], name)):
        here, there = of_synthetic == name, of_training == name
        n, count = int(here.sum()), int(copied[here].sum())
        n_train, n_memorized = int(there.sum()), int(memorized[there].sum())
        n_heldout = above = 0
        if heldout is not None and of_heldout is not None:
            unseen = of_heldout == name
            n_heldout, above = int(unseen.sum()), int(heldout[1][unseen].sum())
        groups.append(
            GroupRate(
                name=name,
                n_synthetic=n,
                n_copies=count,
                copies=proportion_interval(count, n, confidence),
                together=proportion_interval(count, n, every),
                n_train=n_train,
                n_patients=len({patient for patient, is_in in zip(patients, there, strict=True) if is_in}),
                n_memorized=n_memorized,
                memorized=proportion_interval(n_memorized, n_train, confidence) if n_train else None,
                n_heldout=n_heldout,
                control=proportion_interval(above, n_heldout, confidence) if n_heldout else None,
            )
        )
    counts = np.array([[group.n_synthetic, group.n_copies] for group in groups])
    return GroupRates(tuple(groups), _differ(counts[:, 0], counts[:, 1]))


def _differ(sizes: NDArray[np.int64], copies: NDArray[np.int64]) -> float | None:
    """How often copies that fall on samples at random fall as unevenly on the groups."""
    total, found = int(sizes.sum()), int(copies.sum())
    if len(sizes) < 2 or found in (0, total):
        return None
    expected = sizes * (found / total)

    def uneven(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.asarray(((counts - expected) ** 2 / expected).sum(axis=-1), dtype=np.float64)

    drawn = np.random.default_rng(0).multivariate_hypergeometric(sizes, found, size=DRAWS, method="marginals")
    return float((1 + (uneven(drawn) >= uneven(copies) - 1e-9).sum()) / (DRAWS + 1))
