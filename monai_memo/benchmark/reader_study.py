# Copyright (c) monai_memo contributors
# SPDX-License-Identifier: Apache-2.0
"""Do the intervals of a review hold what further images would show? Simulated reviews with known truth.

``python -m monai_memo.benchmark.reader_study`` prints the table of docs/review.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_memo.statistics.reader_study import detection_rates, draw_sample, score_strata

TAU = 0.56
RATES = ("sensitivity", "specificity", "precision", "prevalence")


@dataclass(frozen=True)
class Reading:
    """A review to simulate.

    Attributes:
        images: synthetic images of the audit.
        shown: pairs drawn.
        copies: share of copies.
        apart: how much more similar copies are than others, whose similarity has a standard deviation of 0.1.
    """

    images: int
    shown: int
    copies: float
    apart: float

    def draw(self, n: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """``(n,)`` similarities, and which images are copies."""
        copy = rng.random(n) < self.copies
        return np.where(copy, rng.normal(0.5 + self.apart, 0.12, n), rng.normal(0.4, 0.1, n)), copy


READINGS = (
    Reading(1000, 100, 0.3, 0.3),
    Reading(1000, 100, 0.3, 0.15),
    Reading(200, 80, 0.3, 0.2),
    Reading(5000, 120, 0.05, 0.3),
    Reading(1000, 60, 0.02, 0.3),
    Reading(1000, 100, 0.6, 0.4),
)


def reading_coverage(reading: Reading, reviews: int = 500, seed: int = 0) -> dict[str, dict[str, float]]:
    """Truth, coverage of the 95 % interval and its mean width for each rate."""
    score, copy = reading.draw(2_000_000, np.random.default_rng([seed, 0]))
    above = score > TAU
    truth = {
        "sensitivity": above[copy].mean(),
        "specificity": (~above)[~copy].mean(),
        "precision": copy[above].mean(),
        "prevalence": copy.mean(),
    }
    held: dict[str, list[tuple[bool, float]]] = {name: [] for name in RATES}
    for number in range(reviews):
        rng = np.random.default_rng([seed, 1, number])
        score, copy = reading.draw(reading.images, rng)
        strata = score_strata(score, TAU)
        shown, _ = draw_sample(strata, reading.shown, rng)
        n_strata = int(strata.max()) + 1
        rates = detection_rates(
            np.bincount(strata, minlength=n_strata),
            np.array([bool((score[strata == h] > TAU).all()) for h in range(n_strata)]),
            np.bincount(strata[shown], minlength=n_strata),
            np.bincount(strata[shown][copy[shown]], minlength=n_strata),
        )
        for name in RATES:
            interval = getattr(rates, name)
            if interval is not None:
                held[name].append((interval.low <= truth[name] <= interval.high, interval.high - interval.low))
    return {
        name: {"truth": float(truth[name]), **dict(zip(("coverage", "width"), np.mean(rows, axis=0), strict=True))}
        for name, rows in held.items()
    }


def coverage_table(reviews: int = 500, seed: int = 0) -> str:
    """Markdown: truth, coverage and mean width of each rate in each reading."""
    lines = [
        "| images | shown | copies | " + " | ".join(RATES) + " |",
        "| --- | --- | --- | " + " | ".join("---" for _ in RATES) + " |",
    ]
    for reading in READINGS:
        found = reading_coverage(reading, reviews, seed)
        cells = [
            f"{100 * found[name]['truth']:.0f} %: {100 * found[name]['coverage']:.1f} % ({found[name]['width']:.2f})"
            for name in RATES
        ]
        lines.append(f"| {reading.images} | {reading.shown} | {100 * reading.copies:.0f} % | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(coverage_table())
